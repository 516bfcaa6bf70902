"""What the embedded servers share: private directory, loopback port, password, bounded start, restart after a kill.

Guarantee: `start` returns when the server has answered a real connection with its password, or raises `Fatal` with one
line and the last words of its log. A port that another program took in between is replaced by another one, as long as
nobody knows the first.
"""

from __future__ import annotations

import abc
import contextlib
import os
import secrets
import shutil
import socket
import threading
import time
from pathlib import Path
from typing import ClassVar, Final

from billing.core.errors import Fatal
from billing.embedded.process import Child

LOOPBACK: Final = "127.0.0.1"
START_LIMIT_SECONDS: Final = 60.0
STOP_LIMIT_SECONDS: Final = 20.0
PORT_ATTEMPTS: Final = 4
PROBE_SECONDS: Final = 0.03
_PORTS: Final = range(20_000, 32_000)
_PORT_LOOKS: Final = 1_000
_told: Final[set[int]] = set()


class NotInstalled(Fatal):
    """A server's program is not on this machine."""


class Server(abc.ABC):
    """One embedded server. Its data live in `directory`, which belongs to it alone."""

    name: ClassVar[str]

    def __init__(
        self,
        directory: Path,
        *,
        fast: bool = False,
        hold: tuple[int, ...] = (),
        cancelled: threading.Event | None = None,
    ) -> None:
        self.directory = directory
        self.port = 0
        self._fast = fast
        self._hold = hold
        self._cancelled = cancelled or threading.Event()
        self._child: Child | None = None

    @property
    @abc.abstractmethod
    def url(self) -> str:
        """Where clients connect, password included."""

    @property
    def log(self) -> Path:
        """Where the server's output goes."""
        return self.directory / f"{self.name}.log"

    @property
    def running(self) -> bool:
        """Whether the server's process is there."""
        return self._child is not None and self._child.running

    @property
    def child(self) -> Child:
        """The running process; `Fatal` before the first start."""
        if self._child is None:
            raise Fatal(f"{self.name}: is not running")
        return self._child

    def start(self, *, timeout_seconds: float = START_LIMIT_SECONDS) -> None:
        """Start the server and wait until it answers."""
        self._prepare()
        known_port = self.port
        for attempt in range(PORT_ATTEMPTS):
            if self._cancelled.is_set():
                raise Fatal(f"{self.name}: its start was interrupted")
            self.port = known_port or self._choose_port()
            self._child = self._spawn()
            if self._wait_until_ready(timeout_seconds):
                self._write("port", str(self.port))
                return
            self._child.kill()
            if self._cancelled.is_set():
                continue
            if known_port or not self._lost_race() or attempt == PORT_ATTEMPTS - 1:
                last_lines = " | ".join(self._child.last_lines()) or "no output"
                raise Fatal(f"{self.name}: did not start on {LOOPBACK}:{self.port}: {last_lines} (log: {self.log})")

    def stop(self, *, timeout_seconds: float = STOP_LIMIT_SECONDS) -> None:
        """End the server in its own good order, or by SIGKILL when the time is up. Safe to repeat."""
        if self._child is not None:
            self._child.stop(timeout_seconds)

    def kill(self) -> None:
        """SIGKILL the server, as a power cut would; data on disk stay."""
        self.child.kill()

    def restart(self, *, wipe: bool = False, timeout_seconds: float = START_LIMIT_SECONDS) -> None:
        """Start again on the same port, with the same data and password; with `wipe`, with no data."""
        self.stop()
        if wipe:
            self._wipe()
        self.start(timeout_seconds=timeout_seconds)

    @abc.abstractmethod
    def _prepare(self) -> None:
        """Make the directory ready. Idempotent: it also runs before a restart."""

    @abc.abstractmethod
    def _spawn(self) -> Child:
        """Start the process on `self.port`."""

    @abc.abstractmethod
    def _probe(self) -> bool:
        """Connect as a client would. False means not yet; it never raises for a server that is still starting."""

    @abc.abstractmethod
    def _wipe(self) -> None:
        """Remove the data, keep the password."""

    def _lost_race(self) -> bool:
        """Whether another program took the port, or another port that the server needs, since it was seen free."""
        words = " ".join(self.child.last_lines(40)).lower()
        return not _is_free(self.port) or "eaddrinuse" in words or "address already in use" in words

    def _wait_until_ready(self, timeout_seconds: float) -> bool:
        deadline = time.monotonic() + timeout_seconds
        while time.monotonic() < deadline and self.child.running and not self._cancelled.is_set():
            if self._probe():
                return True
            time.sleep(PROBE_SECONDS)
        return False

    def _choose_port(self) -> int:
        """Prefer the port of the last start, where clients of a persistent stack expect it; else take any free one."""
        with contextlib.suppress(OSError, ValueError):
            last = int((self.directory / "port").read_text())
            if _is_free(last):
                return last
        return free_port()

    def _write(self, file_name: str, text: str) -> Path:
        """Write a file that only this user can read."""
        path = self.directory / file_name
        with open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="utf-8") as file:  # noqa: PTH123 - the mode
            file.write(text)
        return path

    def _password(self, file_name: str = "password") -> str:
        """Read the server's password, made once. Loopback is shared with every other user of the machine."""
        path = self.directory / file_name
        if not path.exists():
            self._write(file_name, secrets.token_urlsafe(24))
        return path.read_text(encoding="utf-8").strip()

    def _remove(self, *names: str) -> None:
        for name in names:
            path = self.directory / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)


def free_port() -> int:
    """Find a loopback port that is free, and that this process was not told before.

    It lies below those that systems lend to outgoing connections, so that none of these takes it before its server
    listens, nor while its server restarts.
    """
    for _ in range(_PORT_LOOKS):
        port = secrets.choice(_PORTS)
        if port not in _told and _is_free(port):
            _told.add(port)
            return port
    raise Fatal(f"{LOOPBACK}: none of {_PORT_LOOKS} ports from {_PORTS[0]} to {_PORTS[-1]} is free")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(
            socket.SOL_SOCKET, socket.SO_REUSEADDR, 1
        )  # as servers do: a closed connection's rest does not block
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
        return True
