"""A terminal in which tests type commands as a user does: fixtures `terminal`, `bare` and `shop`."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from click.testing import CliRunner

from billing import admin
from billing.cli.main import billing
from billing.embedded.stack import Stack
from billing.integration.configuration import read

ROOT = Path(__file__).parents[1]
SECRET = "hunter2"
TABLES = ("client", "credit_grant", "ledger_entry", "price", "usage_history", "usage_rollup", "shard_rebuild", "fleet")
NOWHERE = {
    "BILLING_REDIS_URL": f"redis://:{SECRET}@127.0.0.1:1/0",
    "BILLING_DATABASE_URL": f"postgresql://billing:{SECRET}@127.0.0.1:1/billing",
    "BILLING_BROKER_URL": f"amqp://guest:{SECRET}@127.0.0.1:1//",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What a command did."""

    code: int
    out: str
    err: str

    def json(self) -> Any:
        """Read the output of `--json`."""
        assert self.code == 0, self
        return json.loads(self.out)

    def refused(self, code: int, *names: str) -> None:
        """Check for one line on standard error with these names, no traceback, no password, and this exit code."""
        assert self.code == code, self
        lines = self.err.strip().splitlines()
        assert len(lines) == 1, self.err
        assert lines[0].startswith("Error: ")
        assert self.out == ""
        assert SECRET not in self.err
        for name in names:
            assert name in lines[0], (name, lines[0])


class Terminal:
    """Types commands into a shell whose servers are those of the test."""

    def __init__(self, environment: dict[str, str], directory: Path) -> None:
        self.environment = environment
        self.directory = directory

    def type(self, *arguments: str, **environment: str) -> Answer:
        """Run a command in this process."""
        with pytest.MonkeyPatch.context() as patch:
            for name, value in {**self.environment, **environment}.items():
                patch.setenv(name, value)
            result = CliRunner().invoke(billing, arguments, prog_name="billing")
            admin.close(read({}))
            assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return Answer(code=result.exit_code, out=result.stdout, err=result.stderr)

    def run(self, *arguments: str, **environment: str) -> Answer:
        """Run a command in a process of its own."""
        return self.spawn("billing.cli.main", *arguments, **environment)

    def spawn(self, module: str, *arguments: str, **environment: str) -> Answer:
        """Run a module in a process of its own."""
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            env={**os.environ, **self.environment, "PYTHONPATH": str(ROOT), **environment},
            cwd=self.directory,
            capture_output=True,
            text=True,
            timeout=240,
            check=False,
        )
        return Answer(code=done.returncode, out=done.stdout, err=done.stderr)

    def books(self) -> dict[str, object]:
        """Return all that the servers remember, to compare before and after."""
        with psycopg.connect(self.environment["BILLING_DATABASE_URL"]) as connection:
            found: dict[str, object] = {
                name: connection.execute(f"SELECT * FROM {name} ORDER BY 1, 2".encode()).fetchall() for name in TABLES
            }
        with redis.Redis.from_url(self.environment["BILLING_REDIS_URL"]) as client:
            for key in sorted(client.keys()):
                found[str(key)] = client.dump(key)
        return found


@pytest.fixture
def terminal(redis_url: str, result_url: str, broker_url: str, database_url: str, tmp_path: Path) -> Terminal:
    """Open a terminal on fresh servers."""
    environment = {
        "BILLING_REDIS_URL": redis_url,
        "BILLING_RESULT_URL": result_url,
        "BILLING_BROKER_URL": broker_url,
        "BILLING_DATABASE_URL": database_url,
        "BILLING_CONNECTION_FILE": str(tmp_path / "none.json"),
        # As long as a busy machine may need.
        "BILLING_REDIS_TIMEOUT_SECONDS": "60",
        "BILLING_DATABASE_TIMEOUT_SECONDS": "60",
        "COLUMNS": "200",
    }
    return Terminal(environment, tmp_path)


@pytest.fixture
def bare(terminal: Terminal, stack: Stack) -> Iterator[Terminal]:
    """Open a terminal on fresh servers, with a database that was never migrated."""
    name = f"bare_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(stack.postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE template0".encode())
        url = stack.postgres.url_of(name)
        yield Terminal({**terminal.environment, "BILLING_DATABASE_URL": url}, terminal.directory)
        connection.execute(f"DROP DATABASE {name} WITH (FORCE)".encode())


@pytest.fixture
def shop(terminal: Terminal) -> Terminal:
    """Open a terminal on a migrated database with a client that has 100 credits, and one price."""
    for command in (
        ("client", "add", "acme"),
        ("price", "set", "page", "5", "--unit", "page"),
        ("grant", "acme", "100", "--key", "first"),
    ):
        answer = terminal.type(*command)
        assert answer.code == 0, answer
    return terminal
