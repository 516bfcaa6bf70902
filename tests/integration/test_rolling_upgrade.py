"""A rolling upgrade: processes of the version before the last migration and of this one, on the same servers.

The version before is taken from the repository's history. A checkout without it (an archive, a shallow clone) has none:
that is nothing a machine could install, so that the test is skipped there, also in CI.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest

from billing.embedded.stack import Stack
from tests.integration.test_typed_pages import SOLD, environment, opened
from tests.operator import SEARCH, Site
from tests.wheels import ROOT

__all__ = ["environment", "opened"]  # the fixtures

pytestmark = [pytest.mark.integration, pytest.mark.slow]

_MIGRATIONS = "billing/schema/migrations/versions"
RUNS = 60
#: How many commits are looked at.
COMMITS_BACK = 10


@pytest.fixture(scope="module")
def previous(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Unpack the last whole checkout before the last migration was added."""
    found = _git("log", "-1", "--first-parent", "--diff-filter=A", "--format=%H", "--", _MIGRATIONS).decode().strip()
    if not found:
        pytest.skip("the repository's history is not here: its last migration is in no commit")
    for commit in _git("rev-list", "--first-parent", f"--max-count={COMMITS_BACK}", f"{found}^").decode().split():
        directory = tmp_path_factory.mktemp("previous")
        with tarfile.open(fileobj=io.BytesIO(_git("archive", commit))) as packed:
            packed.extractall(directory, filter="data")
        if _is_whole(directory):
            break
    else:
        pytest.fail(f"none of the {COMMITS_BACK} commits before {found[:7]} can be imported")
    ours, theirs = (sorted(path.name for path in (root / _MIGRATIONS).glob("0*.py")) for root in (ROOT, directory))
    assert len(theirs) < len(ours)
    assert theirs == ours[: len(theirs)]
    return directory


def _is_whole(checkout: Path) -> bool:
    """Whether its commands and its worker can be imported: a commit may be one of several that belong together."""
    code = "import billing.cli.operations, billing.integration.setup, worker_tasks.search"
    environ = {**os.environ, "PYTHONPATH": str(checkout)}
    done = subprocess.run([sys.executable, "-c", code], cwd=checkout, env=environ, capture_output=True, check=False)
    return done.returncode == 0


def _git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(
            f"the repository's history is not here: {done.stderr.decode(errors='replace').partition(chr(10))[0]}"
        )
    return done.stdout


@pytest.fixture
def unmigrated(stack: Stack, environment: dict[str, str]) -> Iterator[None]:
    """Have the site begin with an empty database, which the old version migrates."""
    name = f"upgraded_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(stack.postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        environment["BILLING_DATABASE_URL"] = stack.postgres.url_of(name)
        yield
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.mark.usefixtures("unmigrated")
def test_old_and_new_processes_charge_every_run_once_side_by_side(
    opened: Callable[..., Site], previous: Path, tmp_path: Path
) -> None:
    """Given an old fleet at work, when it is upgraded process by process, then each run is charged once (L2, L3)."""
    site = opened(migrated=False)
    for command in ("billing migrate", *SOLD, "billing grant acme 100000 --key welcome"):
        site.shell.do(command.replace("billing", f"PYTHONPATH={previous} python -m billing.cli.main", 1))
    site.start("consumer-old", "worker-old", root=previous)
    site.work("acme", 2)

    site.shell.do("billing migrate")
    site.work("acme", 2)
    site.start("worker-new")
    site.shell.do(
        f"python -c \"{SEARCH}; r = [s.delay('acme', 'json') for _ in range({RUNS})]; [x.get(timeout=200) for x in r]\""
    )
    logs = {name: (tmp_path / ".billing" / f"{name}.log").read_text() for name in ("worker-old", "worker-new")}
    assert [name for name, log in logs.items() if "succeeded in" not in log] == []
    # The new consumer stands by, and takes the queues over when the old one leaves them.
    site.start("consumer-new")
    site.stop("consumer-old")
    site.work("acme", 2)
    site.stop("worker-old")
    site.work("acme", 2)

    site.wait_for_rows(RUNS + 8)
    site.wait_for("SELECT sum(credits)::bigint FROM usage_history", 25 * (RUNS + 8))
    site.wait_for("SELECT count(*) FROM dead_letter", 0)
    assert "all laws hold" in site.shell.do("billing reconcile --no-stripe")
    assert f" {25 * (RUNS + 8):,}" in site.shell.do("billing balance acme")
