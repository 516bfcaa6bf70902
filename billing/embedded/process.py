"""A child process that cannot outlive this one: servers, workers, beat, Flower.

Guarantee: each child runs below a guard of its own (`guard.py`), in its own session; when this process ends, however it
ends, the child and everything that it started end too. A terminal's Ctrl-C does not reach it: its owner decides on the
order of stopping.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, Self

from billing.core.errors import Fatal

GUARD: Final = Path(__file__).with_name("guard.py")
GRACE_SECONDS: Final = 4.0
START_LIMIT_SECONDS: Final = 30.0
KILL_LIMIT_SECONDS: Final = 15.0
LOG_TAIL_BYTES: Final = 16_384

_running: Final[set[Child]] = set()  # else the collector would close the socket of a child that nobody keeps


class Child:
    """One guarded process. `pid` is its guard, `child_pid` the process itself, which leads a session of its own."""

    def __init__(
        self,
        *,
        name: str,
        log: Path,
        guard: subprocess.Popen[bytes],
        line: socket.socket,
        child_pid: int,
        stop_signal: int,
    ) -> None:
        self.name = name
        self.log = log
        self.child_pid = child_pid
        self._guard = guard
        self._line = line
        self._stop_signal = stop_signal
        _running.add(self)

    @classmethod
    def spawn(  # noqa: PLR0913 - what a process needs to be told
        cls,
        name: str,
        command: Sequence[str | os.PathLike[str]],
        *,
        environ: Mapping[str, str],
        cwd: Path,
        log: Path,
        user: int | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace_seconds: float = GRACE_SECONDS,
        hold: Sequence[int] = (),
    ) -> Self:
        """Start `command` below a guard and return once the process exists.

        `environ` is the whole environment of the child. Output is appended to `log`. `user` (root only) is the user id
        to run as. `stop_signal` asks the program to end; it has `grace_seconds` for that after this process has died.
        The guard keeps the descriptors `hold` open for as long as anything of the child is left. Raises `Fatal` when
        the guard cannot start.
        """
        ours, theirs = socket.socketpair()
        gid = -1 if user is None else pwd.getpwuid(user).pw_gid
        arguments = [
            theirs.fileno(),
            os.getpid(),
            grace_seconds,
            int(stop_signal),
            -1 if user is None else user,
            gid,
            "--",
            *command,
        ]
        with theirs, log.open("ab") as output:
            guard = subprocess.Popen(
                [sys.executable, "-I", "-S", GUARD, *map(str, arguments)],
                env=dict(environ),
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                pass_fds=(theirs.fileno(), *hold),
                start_new_session=True,
            )
        ours.settimeout(START_LIMIT_SECONDS)
        with contextlib.suppress(OSError), ours.makefile("rb") as lines:
            if answer := lines.readline().strip():
                return cls(
                    name=name,
                    log=log,
                    guard=guard,
                    line=ours,
                    child_pid=int(answer),
                    stop_signal=int(stop_signal),
                )
        ours.close()
        guard.kill()
        guard.wait()
        raise Fatal(f"{name}: its guard process did not start; see {log}")

    @property
    def pid(self) -> int:
        """The guard's process id: it lives until nothing of the child is left."""
        return self._guard.pid

    @property
    def running(self) -> bool:
        """Whether the child, or anything that it left behind, is still there."""
        return self._guard.poll() is None

    @property
    def returncode(self) -> int | None:
        """The child's exit code, as shells have it: 128 + n when signal n ended it; None while it runs."""
        return self._guard.poll()

    def wait(self, timeout_seconds: float | None = None) -> int | None:
        """Wait for the end of the child and of all that it left; return the exit code, or None when the time was up."""
        try:
            code = self._guard.wait(timeout_seconds)
        except subprocess.TimeoutExpired:
            return None
        self._line.close()
        _running.discard(self)
        return code

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child itself (SIGTERM to a Celery worker is its warm stop)."""
        if number == signal.SIGKILL:
            if self.running:
                _send(self.child_pid, number)
        else:
            self._guard.send_signal(number)

    def stop(self, timeout_seconds: float = 10.0) -> int:
        """Ask the child to end, wait, kill its tree when the time is up; return the exit code. Safe to repeat."""
        self._guard.send_signal(self._stop_signal)
        code = self.wait(timeout_seconds)
        return self.kill() if code is None else code

    def kill(self) -> int:
        """SIGKILL the child and everything below it; return when nothing is left."""
        with contextlib.suppress(OSError):
            self._line.sendall(b"K")
        code = self.wait(KILL_LIMIT_SECONDS)
        self._line.close()
        if code is None:
            raise Fatal(f"{self.name}: process {self.child_pid} did not end on SIGKILL")
        return code

    def last_lines(self, count: int = 5) -> list[str]:
        """Read the last lines that the child has written to its log."""
        with contextlib.suppress(OSError), self.log.open("rb") as log:
            log.seek(max(0, log.seek(0, os.SEEK_END) - LOG_TAIL_BYTES))
            lines = log.read().decode(errors="replace").splitlines()
            return [line.strip() for line in lines if line.strip()][-count:]
        return []


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)
