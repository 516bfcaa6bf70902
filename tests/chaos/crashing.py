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
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.context import ForkServerContext
from typing import Any, Final, Literal

import celery
import psycopg

import billing
from billing.alerts.announcing import Announcer
from billing.alerts.recording import record_and_announce
from billing.core.errors import AlreadyCharged
from billing.core.settings import Settings
from billing.events import publisher
from billing.fulfillment import consumer
from billing.fulfillment.consumer import Bounds, Consumer
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.drain import drain
from billing.fulfillment.usage_log import BatchReport, UsageLog
from billing.integration import services
from billing.recovery.postings import apply_postings
from billing.task.attachment import attachment_of
from billing.task.runtime import Runtime

#: Bounds a child that never comes to its point.
SECONDS: Final = 300.0
#: The blocks that a publisher bills, by the client that pays.
BLOCKS: Final = tuple((("acme", "brook")[number % 2], f"block-{number}") for number in range(12))
SKU: Final = "page"
#: Messages that wait for their confirms together: few, so that a few make several windows.
WINDOW: Final = 8
#: A consumer that is cut off gives its batch back soon.
GIVE_BACK_SECONDS: Final = 0.2
#: The batch at which a consumer is told to stop, or whose write hangs.
TURNING_BATCH: Final = 2

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
            HALFWAY[point.where](original, args, lambda: end(args[0]))
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


def _send_half(original: Callable[..., Any], args: Sequence[Any], end: Callable[[], None]) -> None:
    """Send half of an ack's bytes."""
    transport = args[0]._channel.connection.transport
    write = transport._write  # of the frame writer, which keeps `write` itself

    def write_half(data: bytes) -> None:
        write(bytes(data)[: len(data) // 2])
        end()

    transport._write = write_half
    original(*args)


def _commit_unheard(original: Callable[..., Any], args: Sequence[Any], end: Callable[[], None]) -> None:
    """Have the batch committed, and do not hear the answer."""
    log = args[0]
    report = original(*args)
    assert report.events, "a batch without rows cannot be seen from outside"
    connection = log._connection
    connection.pgconn.send_query(b"COMMIT")
    while connection.pgconn.flush():
        pass
    end()
    # Whoever killed the server has done so after the commit: what this raises is what production meets.
    connection.commit()


#: What can be done by half.
HALFWAY: Final[Mapping[str, Callable[[Callable[..., Any], Sequence[Any], Callable[[], None]], None]]] = {
    "billing.fulfillment.intake:Intake.ack": _send_half,
    "billing.fulfillment.usage_log:UsageLog._write": _commit_unheard,
}


def _publisher(runtime: Runtime) -> None:
    """Bill blocks, as a web view or a worker does; a block that was charged before is not run again."""
    app = celery.Celery("crashing", set_as_current=False)
    app.conf.update({f"billing_{name}": value for name, value in dataclasses.asdict(runtime.settings).items() if value})
    billing.setup(app)
    for client_id, key in BLOCKS:
        try:
            with billing.reserve(client_id, SKU, app=app, key=key):
                pass
        except AlreadyCharged:
            continue
    attachment_of(app).lifecycle.close()
    attachment_of(app).runtime.close()


def _relay(runtime: Runtime) -> None:
    services.make_relay(runtime).sweep()


def _consumer(runtime: Runtime) -> None:
    services.make_consumer(runtime, [0]).run(Bounds(seconds=SECONDS))


def _drain(runtime: Runtime) -> None:
    drain(runtime.settings, services.make_usage_log(runtime), seconds=SECONDS, batches=100, idle_seconds=SECONDS)


def _stopped_consumer(runtime: Runtime) -> None:
    """Consume, and be told to stop while the second batch is written."""
    batches = 0

    def stop(_: object) -> None:
        nonlocal batches
        batches += 1
        if batches == TURNING_BATCH:
            stopped.stop()

    stopped = Consumer(runtime.settings, services.make_usage_log(runtime), queues=[0], after_commit=stop)
    stopped.run(Bounds(seconds=SECONDS))


class _Hanging(UsageLog):
    """A usage log whose second write gets no answer."""

    batches = 0

    def write(self, batch: Sequence[Delivered]) -> BatchReport:
        """Write, or hang."""
        self.batches += 1
        if self.batches == TURNING_BATCH:
            threading.Event().wait(SECONDS)
        return super().write(batch)


def _cut_off_consumer(runtime: Runtime) -> None:
    """Consume, and find that the database does not answer."""
    setattr(consumer, "GIVE_BACK_SECONDS", GIVE_BACK_SECONDS)  # noqa: B010 - replaced in this process only
    log = _Hanging(lambda: psycopg.connect(runtime.settings.database_url), shards=runtime.settings.shards)
    Consumer(runtime.settings, log, queues=[0]).run(Bounds(seconds=SECONDS))


def _postings(runtime: Runtime) -> None:
    apply_postings(runtime)


def _alerts(runtime: Runtime) -> None:
    announcer = Announcer(runtime)
    record_and_announce(runtime, announcer)
    announcer.finish()


PROCESSES: Final[Mapping[str, Callable[[Runtime], None]]] = {
    "publisher": _publisher,
    "relay": _relay,
    "consumer": _consumer,
    "consumer that stops": _stopped_consumer,
    "consumer that is cut off": _cut_off_consumer,
    "drain": _drain,
    "postings": _postings,
    "alerts": _alerts,
}
