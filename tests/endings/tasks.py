"""The tasks that the fleet under test has for its endings, besides those of `tests.fleet.tasks`.

Where a first delivery ends otherwise than the next, it is told by what its client's runs have noted so far.
"""

from __future__ import annotations

import functools
import os
import resource
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import celery
from celery.exceptions import Reject, SoftTimeLimitExceeded
from kombu.exceptions import OperationalError

from billing import BillableTask
from billing.task.lifecycle import Lifecycle
from tests.fleet.tasks import SKU, dying, note, noted, wait_for_gate

#: A gate that nobody opens.
NEVER: Final = "never"
#: What a run may have more than its process has, before it asks for as much again and more.
_ROOM_BYTES: Final = 256 * 2**20


def add(app: celery.Celery, directory: Path) -> None:
    """Register the tasks."""
    _bodies(app, directory)
    _retries(app, directory)
    _limits(app, directory)
    _deaths(app, directory)
    _messages(app)


def add_kill_points(directory: Path) -> None:
    """Have a process die by SIGKILL before a step of billing for a client, once, when a file asks for it.

    The file is `kill.<step>.<client>`; whoever takes it away dies.
    """
    for step in ("_settle", "publish", "end"):
        setattr(Lifecycle, step, _dying_for_client(getattr(Lifecycle, step), step, directory))


def delivery(directory: Path, client_id: str) -> int:
    """Note a delivery of a client, and return its number."""
    note(directory, f"{client_id}.delivered")
    return len(noted(directory, f"{client_id}.delivered"))


def _dying_for_client(step: Callable[..., Any], name: str, directory: Path) -> Callable[..., Any]:
    @functools.wraps(step)
    def before(self: Lifecycle, subject: Any, *rest: Any) -> Any:
        client_id = subject if isinstance(subject, str) else subject.identity.client_id
        return dying(step, directory / f"kill.{name}.{client_id}")(self, subject, *rest)

    return before


def _bodies(app: celery.Celery, directory: Path) -> None:
    @app.task(shared=False, name="one", base=BillableTask, sku=SKU)
    def one(client_id: str) -> str:
        return client_id

    @app.task(shared=False, name="forgotten", base=BillableTask, sku=SKU, ignore_result=True)
    def forgotten(client_id: str) -> str:
        return client_id

    @app.task(shared=False, name="records_and_fails", bind=True, base=BillableTask, sku=SKU)
    def records_and_fails(self: BillableTask, client_id: str) -> None:
        self.usage.record(quantity=3)
        raise ValueError(client_id)

    @app.task(shared=False, name="total", base=BillableTask, sku=SKU)
    def total(values: Sequence[int], client_id: str) -> int:
        return sum(values)

    @app.task(shared=False, name="requeues", base=BillableTask, sku=SKU)
    def requeues(client_id: str) -> int:
        number = delivery(directory, client_id)
        if number == 1:
            raise Reject(client_id, requeue=True)
        return number

    def raising(self: BillableTask, *_: Any) -> None:
        """Fail after the task has ended."""
        raise RuntimeError("a user's hook")

    @app.task(shared=False, name="raises_after_return", base=BillableTask, sku=SKU, after_return=raising)
    def raises_after_return(client_id: str) -> str:
        return client_id

    @app.task(shared=False, name="raises_before_start", base=BillableTask, sku=SKU, before_start=raising)
    def raises_before_start(client_id: str) -> str:
        return client_id


def _retries(app: celery.Celery, directory: Path) -> None:
    @app.task(shared=False, name="gives_up", bind=True, base=BillableTask, sku=SKU, max_retries=2)
    def gives_up(self: BillableTask, client_id: str) -> None:
        raise self.retry(exc=ConnectionError(client_id), countdown=0.1)

    options: dict[str, Any] = {
        "autoretry_for": (ConnectionError,),
        "retry_kwargs": {"countdown": 0.1},
        "max_retries": 3,
    }

    @app.task(shared=False, name="comes_through", base=BillableTask, sku=SKU, **options)
    def comes_through(client_id: str) -> int:
        number = delivery(directory, client_id)
        if number < 3:
            raise ConnectionError(client_id)
        return number

    @app.task(shared=False, name="waits", bind=True, base=BillableTask, sku=SKU)
    def waits(self: BillableTask, client_id: str, seconds: float) -> int:
        if self.request.retries == 0:
            note(directory, f"{client_id}.started")
            raise self.retry(countdown=seconds)
        return int(self.request.retries)

    @app.task(shared=False, name="replaced", bind=True, base=BillableTask, sku=SKU)
    def replaced(self: BillableTask, client_id: str) -> None:
        raise self.replace(app.tasks["one"].si(client_id))


def _limits(app: celery.Celery, directory: Path) -> None:
    @app.task(shared=False, name="too_long", base=BillableTask, sku=SKU)
    def too_long(client_id: str) -> None:
        wait_for_gate(directory, NEVER)

    @app.task(shared=False, name="makes_do", base=BillableTask, sku=SKU)
    def makes_do(client_id: str) -> str:
        try:
            wait_for_gate(directory, NEVER)
        except SoftTimeLimitExceeded:
            return "what there was"
        return "all"


def _deaths(app: celery.Celery, directory: Path) -> None:
    @app.task(shared=False, name="dies_once", base=BillableTask, sku=SKU)
    def dies_once(client_id: str) -> int:
        number = delivery(directory, client_id)
        if number == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return number

    @app.task(shared=False, name="exits_once", base=BillableTask, sku=SKU)
    def exits_once(client_id: str) -> int:
        number = delivery(directory, client_id)
        if number == 1:
            sys.exit(3)
        return number

    @app.task(shared=False, name="out_of_memory", base=BillableTask, sku=SKU)
    def out_of_memory(client_id: str) -> int:
        soft, hard = resource.getrlimit(resource.RLIMIT_AS)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (used + _ROOM_BYTES, hard))
        try:
            return len(bytearray(8 * _ROOM_BYTES))
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (soft, hard))

    @app.task(shared=False, name="over_rlimit_once", base=BillableTask, sku=SKU)
    def over_rlimit_once(client_id: str) -> int:
        number = delivery(directory, client_id)
        if number == 1:
            used = resource.getrusage(resource.RUSAGE_SELF)
            seconds = int(used.ru_utime + used.ru_stime) + 1
            resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
            while True:
                sum(range(10_000))
        return number


def _messages(app: celery.Celery) -> None:
    class Unsendable(BillableTask):
        """A task whose message no broker takes."""

        abstract = True

        def apply_async(self, *_: Any, **__: Any) -> Any:
            """Fail as a publish does that has used up its tries."""
            raise OperationalError("the broker is away")

    @app.task(shared=False, name="unsendable", base=Unsendable, sku=SKU)
    def unsendable(client_id: str) -> None:
        raise AssertionError(client_id)
