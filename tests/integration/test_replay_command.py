"""The command `billing replay`: what it refuses, and two real recordings through a fleet of its own."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.fleet.harness import ROOT
from tests.terminal import Answer, Terminal

#: Real recordings, where they lie beside the checkout: a web server's log, and calls of a language model.
DATA = (ROOT / "../shared/data").resolve()
WEB_LOG, LLM_TRACE = DATA / "apache_access_2015.log.gz", DATA / "azure_llm_2023_conv.csv.gz"
#: Far above what it takes: a busy machine is no failure.
LIMIT_SECONDS = 570


@pytest.fixture
def here(tmp_path: Path) -> Terminal:
    """Open a terminal in an empty directory; no server is configured, and none is needed to refuse."""
    return Terminal({"BILLING_CONNECTION_FILE": str(tmp_path / "none.json")}, tmp_path)


@pytest.mark.parametrize(
    ("content", "arguments", "names"),
    [
        (None, (), ("FILE", "is not there")),
        (b"", (), ("FILE", "is empty")),
        (gzip.compress(b""), (), ("FILE", "is empty")),
        (bytes(range(256)) * 9, (), ("FILE", "is a binary file")),
        (b"who,what\na,1\n", (), ("--client: 'client'", "its columns are: who, what")),
        (b"who,what\na,1\n", ("--client", "who", "--sku", "=x", "--quantity", "much"), ("--quantity: 'much'",)),
        (b"who,what\na,1\n", ("--client", "who", "--sku", "=X"), ("--sku: 'X'",)),
        (
            b"who,what\na,1\n",
            ("--client", "who", "--sku", "=x", "--quantity", "what", "--price", "cheap"),
            ("--price",),
        ),
        (b"who,what\na,1\n", ("--client", "who", "--spread", "3"), ("--spread",)),
        (b"who,what\na,1\n", ("--grant", "0"), ("--grant", "must be from 1")),
        (b"x\n", ("--format", "combined", "--quantity", "what"), ("--quantity",)),
    ],
)
def test_a_file_or_an_option_that_will_not_do_is_refused_in_one_line(
    here: Terminal, content: bytes | None, arguments: tuple[str, ...], names: tuple[str, ...]
) -> None:
    """Exit code 2, nothing started, nothing left behind."""
    file = here.directory / "file.csv"
    if content is not None:
        file.write_bytes(content)
    here.run("replay", str(file), *arguments).refused(2, *names)
    assert not (here.directory / ".billing").exists()


def test_a_directory_is_refused(here: Terminal) -> None:
    here.run("replay", str(here.directory)).refused(2, "FILE", "is a directory")


@pytest.mark.integration
def test_a_database_without_tables_is_refused_in_one_line(bare: Terminal) -> None:
    (bare.directory / "file.csv").write_text("client,sku,quantity\nacme,page,1\n")
    answer = bare.run("replay", "file.csv")
    assert answer.code == 1
    assert [line for line in answer.err.splitlines() if line] == answer.err.strip().splitlines()[:1]
    assert "run: billing migrate" in answer.err


@pytest.mark.integration
def test_a_file_is_named_as_it_is_called(shop: Terminal) -> None:
    """A name may look like markup, and may be no text at all."""
    name = os.fsdecode(b"caf\xe9[red].csv")
    (shop.directory / name).write_text("client,sku,quantity\n,page,1\n")
    answer = shop.run("replay", name)
    assert answer.code == 2
    assert "caf\\xe9[red].csv: looking through it" in answer.out
    assert "FILE: '1 lines': has no row: line 2: client: '': must be" in answer.err


def own_fleet(directory: Path, *arguments: str) -> Answer:
    """Replay without any server configured, and end within the bound."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("BILLING_")}
    if "BILLING_EMBEDDED_BROKER" in os.environ:
        environ["BILLING_EMBEDDED_BROKER"] = os.environ["BILLING_EMBEDDED_BROKER"]
    done = subprocess.run(
        [sys.executable, "-m", "billing.cli.main", "replay", *arguments, "--json"],
        cwd=directory,
        env=environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=LIMIT_SECONDS,
        check=False,
    )
    return Answer(code=done.returncode, out=done.stdout, err=done.stderr)


def account(found: dict[str, Any]) -> tuple[int, ...]:
    """Return lines, charged, refused, malformed, failed, which must add up."""
    lines, *parts = (found[name] for name in ("rows", "charged", "refused", "malformed", "failed"))
    assert lines == sum(parts)
    return (lines, *parts)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECONDS + 20)
@pytest.mark.skipif(not WEB_LOG.exists(), reason=f"{WEB_LOG} is not there")
def test_given_a_real_web_log_when_replayed_then_each_of_its_lines_is_accounted_for(tmp_path: Path) -> None:
    """10,000 lines of 1,753 clients, one of them cut off; six clients use more than their 100,000 credits."""
    answer = own_fleet(tmp_path, str(WEB_LOG), "--format", "combined")
    assert answer.code == 0, answer
    found = json.loads(answer.out)
    lines, charged, refused, malformed, failed = account(found)
    assert (lines, malformed, failed) == (10_000, 1, 0)
    assert [entry["line"] for entry in found["malformed_lines"]] == [8_899]
    assert 0 < refused < 40
    assert (found["all"]["usage_rows"], found["all"]["granted"]) == (charged, 1_753 * 100_000)
    assert found["all"]["spent"] == found["all"]["stripe_units"]
    assert found["clients"][-1]["name"] == "1,743 others"
    assert all(law["holds"] for law in found["findings"])


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(LIMIT_SECONDS + 20)
@pytest.mark.skipif(not LLM_TRACE.exists(), reason=f"{LLM_TRACE} is not there")
def test_given_a_real_trace_of_language_models_when_replayed_then_credits_are_the_ceiling(tmp_path: Path) -> None:
    """L1: 26,450,535 tokens of 50 clients with 100,000 credits each; what is charged stays below what was granted."""
    shape = ("--quantity", "ContextTokens+GeneratedTokens", "--spread", "50", "--sku", "=llm-tokens")
    answer = own_fleet(tmp_path, str(LLM_TRACE), *shape, "--time", "TIMESTAMP")
    assert answer.code == 0, answer
    found = json.loads(answer.out)
    lines, charged, refused, malformed, failed = account(found)
    assert (lines, malformed, failed) == (19_366, 0, 0)
    assert refused > 0
    assert (found["all"]["usage_rows"], found["all"]["granted"]) == (charged, 50 * 100_000)
    # Every client's credits run out: none has room left for the largest row of the trace.
    assert 50 * 80_000 < found["all"]["spent"] <= 50 * 100_000
    assert found["all"]["spent"] == found["all"]["stripe_units"]
    assert all(law["holds"] for law in found["findings"])
