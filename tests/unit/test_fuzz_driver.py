"""The driver of the fuzzers: it runs, it finds what is broken, and what it found is replayed by the line it prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz import report
from tests.fuzz.__main__ import MISSING
from tests.fuzz.nasty import NASTY
from tests.fuzz.target import TARGETS

ROOT = Path(__file__).parents[2]
PRINTED = """\
#2\tINITED cov: 12 ft: 13 corp: 1/1b exec/s: 0 rss: 50Mb
#41\tNEW    cov: 40 ft: 89 corp: 26/6429b lim: 1799 exec/s: 14734 rss: 61Mb L: 679/1325 MS: 1 EraseBytes-
 === Uncaught Python exception: ===
Broken: ('shows a secret', 'x')
Traceback (most recent call last):
SUMMARY: libFuzzer: fuzz target exited
artifact_prefix='build/'; Test unit written to build/crash-1
stat::number_of_executed_units: 42
"""


def typed(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the driver."""
    command = [sys.executable, "-m", "tests.fuzz", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)


def test_what_libfuzzer_prints_is_read() -> None:
    found = report.read(PRINTED)
    assert (found.executions, found.edges, found.features) == (42, 40, 89)
    assert (found.found, found.reason) == ("build/crash-1", "Broken: ('shows a secret', 'x')")
    assert report.read("") == report.Outcome(executions=0, edges=0, features=0)


def test_every_target_is_a_file_and_in_the_documentation() -> None:
    files = {path.stem for path in (ROOT / "tests" / "fuzz" / "targets").glob("*.py")} - {"__init__"}
    page = (ROOT / "docs" / "fuzzing.md").read_text("utf-8")
    assert files == set(TARGETS)
    assert [name for name in TARGETS if f"`{name}`" not in page] == []


def test_a_few_runs_of_the_fuzzer(tmp_path: Path) -> None:
    """Given atheris, then it reaches code beyond the seeds' parsing and finds nothing; without it, one line says so."""
    pytest.importorskip("atheris", reason=MISSING)
    done = typed("usage_events", "--runs", "300", "--seconds", "5", "--directory", str(tmp_path))
    assert done.returncode == 0, done.stdout + done.stderr
    row = done.stdout.splitlines()[1].split()
    assert row[0] == "usage_events"
    assert int(row[1].replace(",", "")) >= 300
    assert int(row[2]) > 50
    assert row[4] == "-"


def test_what_was_found_is_replayed_without_the_fuzzer(tmp_path: Path) -> None:
    """Given a file, then its law is held against it: it holds, or the traceback says what is broken."""
    file = tmp_path / "crash"
    file.write_bytes(NASTY[-1])
    done = typed("logs", "--replay", str(file))
    assert (done.returncode, done.stdout) == (0, f"logs holds for {file}\n")
    assert typed("--replay", str(file)).returncode == 2
