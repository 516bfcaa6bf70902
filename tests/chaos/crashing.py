"""A process of billing that dies by SIGKILL at a named point of its work, or halts there while a server dies.

The work is production's own, and knows nothing of this: the point is a name of a function or of an SQL statement, which
is wrapped in the child process before it starts. Children are forked from a server process that has imported what they
need, so that a point costs no start of Python.
"""

from __future__ import annotations

import dataclasses
import functools
import importlib
import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Callable, Mapping
from multiprocessing.context import ForkServerContext
from typing import Any, Final, Literal

import psycopg

from billing.core.settings import Settings
from billing.events import publisher
from billing.task.runtime import Runtime
from tests.chaos.processes import PROCESSES, SECONDS

#: Messages that wait for their confirms together: few, so that a few make several windows.
WINDOW: Final = 8

Victim = Literal["itself", "rabbitmq", "postgres", "backend"]
When = Literal["before", "after", "halfway"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """Where a process dies: `when` the call number `nth` of `where`, as module:name or module:class.name.

    A `where` that is text is an SQL statement: what counts then is its execution. `halfway` is for what HALFWAY knows.
    A victim other than the process itself is killed while the process halts there; `backend` is PostgreSQL's process
    of the process's own connection.
    """

    name: str
    process: str
    when: When
    where: str
    nth: int = 1
    victim: Victim = "itself"

    def __str__(self) -> str:
        return f"{self.process}: {self.name}".replace(" ", "-")


def context() -> ForkServerContext:
    """Return what forks processes that have imported this."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload([__name__])
    return found


def die_with_the_test() -> None:
    """Have this process end when the test's own process has ended, however it did."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    sentinel = parent.sentinel

    def wait() -> None:
        multiprocessing.connection.wait([sentinel])
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()


def start(settings: Settings, process: str, point: Point | None = None) -> Doomed:
    """Start the process of a point, or one that is not to die."""
    ours, theirs = context().Pipe()
    child = context().Process(target=_live, args=(settings, process, point, theirs), daemon=True)
    child.start()
    theirs.close()
    return Doomed(child, ours)


class Doomed:
    """A process that was started, as the test sees it."""

    def __init__(self, child: Any, line: multiprocessing.connection.Connection) -> None:
        self._child, self._line = child, line

    def exit_code(self) -> int | None:
        """Wait for the end; minus the signal's number if one ended it."""
        self._child.join(SECONDS)
        code: int | None = self._child.exitcode
        return code

    def halted(self) -> int:
        """Wait until it halts at its point; return the process id of the backend of its connection, 0 without one."""
        assert self._line.poll(SECONDS), "it never came to its point"
        return int(self._line.recv())

    def go_on(self) -> None:
        """Have it go on."""
        self._line.send(None)

    def kill(self) -> None:
        """End it, wherever it is."""
        self._child.kill()
        self._child.join()
        self._child.close()
        self._line.close()


def _live(settings: Settings, process: str, point: Point | None, line: multiprocessing.connection.Connection) -> None:
    die_with_the_test()
    if point is not None:
        setattr(publisher, "WINDOW", WINDOW)  # noqa: B010 - replaced in this process only
        _arm(point, line)
    runtime = Runtime(lambda: settings)
    PROCESSES[process](runtime)
    runtime.close()


def _arm(point: Point, line: multiprocessing.connection.Connection) -> None:
    """Wrap what the point names."""
    owner, name = _found(point.where)
    original, statement = getattr(owner, name), None
    if isinstance(original, str):
        owner, name, statement = psycopg.Cursor, "execute", original
        original = psycopg.Cursor.execute
    calls, lock = 0, threading.Lock()

    def end(this: object) -> None:
        if point.victim == "itself":
            os.kill(os.getpid(), signal.SIGKILL)
        line.send(_backend_of(this))
        line.recv()

    @functools.wraps(original)
    def wrapped(*args: Any, **named: Any) -> Any:
        nonlocal calls
        if statement is not None and args[1] != statement:
            return original(*args, **named)
        with lock:
            calls += 1
            is_due = calls == point.nth
        if is_due and point.when == "before":
            end(args[0])
        if is_due and point.when == "halfway":
            HALFWAY[point.where](lambda: original(*args, **named), args[0], lambda: end(args[0]))
        result = original(*args, **named)
        if is_due and point.when == "after":
            end(args[0])
        return result

    setattr(owner, name, wrapped)


def _found(where: str) -> tuple[Any, str]:
    module, _, path = where.partition(":")
    *owners, name = path.split(".")
    return functools.reduce(getattr, owners, importlib.import_module(module)), name


def _backend_of(this: object) -> int:
    connection = getattr(this, "_connection", None)
    return connection.info.backend_pid if isinstance(connection, psycopg.Connection) else 0


def _send_half(call: Callable[[], Any], intake: Any, end: Callable[[], None]) -> None:
    """Send half of an ack's bytes."""
    transport = intake._channel.connection.transport
    write = transport._write  # of the frame writer, which keeps `write` itself

    def write_half(data: bytes) -> None:
        write(bytes(data)[: len(data) // 2])
        end()

    transport._write = write_half
    call()


def _commit_unheard(call: Callable[[], Any], log: Any, end: Callable[[], None]) -> None:
    """Have the batch committed, and do not hear the answer."""
    report = call()
    assert report.events, "a batch without rows cannot be seen from outside"
    connection = log._connection
    connection.pgconn.send_query(b"COMMIT")
    while connection.pgconn.flush():
        pass
    end()
    # Whoever killed the server has done so after the commit: what this raises is what production meets.
    connection.commit()


#: What can be done by half.
HALFWAY: Final[Mapping[str, Callable[[Callable[[], Any], Any, Callable[[], None]], None]]] = {
    "billing.fulfillment.intake:Intake.ack": _send_half,
    "billing.fulfillment.postgres_log:PostgresUsageLog._write": _commit_unheard,
}
