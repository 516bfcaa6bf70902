"""A worker process: deliveries of tasks, step by step, billed by the project's own `Lifecycle`.

Every step may be the last one. What the process owes and renews lives in it and dies with it.
"""

from __future__ import annotations

import inspect
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final

import pytest
from celery.states import FAILURE, RETRY, SUCCESS

from billing.catalog.price_book import PriceBook
from billing.core.errors import BillingError, Recovering, Retryable
from billing.core.limits import RENEWALS_PER_LEASE
from billing.core.shards import queue_of, shard_of
from billing.task import pending, publishing
from billing.task.definition import Definition
from billing.task.headers import identify
from billing.task.lifecycle import Lifecycle
from billing.task.outcome import Outcome
from billing.task.reaper import StoredResult
from billing.task.run import Run
from tests.simulation.broker import TASK, Message, Publishing
from tests.simulation.chance import MachineClock
from tests.simulation.faults import Killed, Wire

if TYPE_CHECKING:
    from tests.simulation.world import World

_NO_ARGUMENTS = inspect.Signature()
_OVER = object()
#: Tasks at a time.
TASKS_MAX: Final = 4


class _Prices:
    """The price book, which never changes here."""

    def __init__(self, book: PriceBook) -> None:
        self._book = book

    def get(self) -> PriceBook:
        return self._book

    renewed = get


class _Records:
    """What a worker asks of PostgreSQL."""

    def __init__(self, world: World) -> None:
        self._world = world

    def is_charged(self, run_id: uuid.UUID) -> bool:
        return run_id in self._world.log.history

    def told_charges(self, runs: Sequence[tuple[str, uuid.UUID]]) -> set[uuid.UUID]:
        told = {run_id for client_id, run_id in runs if self._world.log.is_told(client_id, run_id)}
        self._world.told |= told
        return told

    def without_bucket(self, client_id: str, *, missing: bool, corrupt: bool = False) -> BillingError:
        if missing:
            self._world.bucket_missing(client_id)
        return Recovering(f"client {client_id!r}: its shard is being rebuilt")


class _Runtime:
    """The services of one process."""

    def __init__(self, world: World, clock: MachineClock, cut_off: Mapping[str, int]) -> None:
        def reaches(server: str) -> bool:
            return cut_off.get(server, 0) <= world.clock.elapsed_ms

        buckets, broker = world.to_redis(lambda: reaches("redis")), world.to_broker(lambda: reaches("broker"))
        publisher = Publishing(broker, world.observed.excuses.not_taken)
        self.settings, self.clock, self.buckets, self.publisher = world.settings, clock, buckets, publisher
        self.observer = None
        self.prices, self.records = _Prices(world.book), Wire(_Records(world), world.chance, world.rates)


class _Lifecycle(Lifecycle):
    def __init__(self, runtime: Any) -> None:
        super().__init__(runtime)
        #: Runs of which this process was told that no bucket takes them now.
        self.refused: set[uuid.UUID] = set()
        # Both pay and renew when the world lets them, not in a thread.
        for loop in (self.pending, self.renewal):
            vars(loop)["_start"] = lambda: None
        # And PostgreSQL is asked at once.
        vars(self.releases)["_start"] = lambda question: question()

    def _settle(self, run: Run) -> None:
        try:
            super()._settle(run)
        except Recovering:
            self.refused.add(run.identity.run_id)
            raise


class _Waits:
    """How a process that stops waits: simulated time passes."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        return self._world.clock.monotonic()

    def sleep(self, seconds: float) -> None:
        self._world.books.live_until(self._world.clock.ms + int(seconds * 1_000))

    wait = sleep


@dataclass(kw_only=True, eq=False)
class _Delivery:
    message: Message
    steps: Iterator[None]


class Process:
    """One worker process with a few tasks at a time."""

    def __init__(self, world: World, number: int) -> None:
        self._world = world
        self.number = number
        self.clock = MachineClock(world.clock)
        self.clock.offset_ms = world.chance.whole(-400, 400)
        #: Until when it does not reach a server.
        self.cut_off: dict[str, int] = {}
        runtime = _Runtime(world, self.clock, self.cut_off)
        self._buckets, self._waits = runtime.buckets, _Waits(world)
        self._lifecycle = _Lifecycle(runtime)
        vars(self._lifecycle.pending)["_wake"] = self._waits
        self._running: list[_Delivery] = []
        self._runs: dict[uuid.UUID, Run] = {}
        self._renew_at = self._pay_at = self.stalled_until_ms = 0

    @property
    def is_idle(self) -> bool:
        """Whether nothing runs here, and nothing is owed."""
        lifecycle = self._lifecycle
        return not (self._running or lifecycle.pending._settles or len(lifecycle.events) or len(lifecycle.releases))

    @property
    def owes_at_most(self) -> int:
        """How many charges it may have that are not in the log."""
        return TASKS_MAX + self._lifecycle.pending.owed + len(self._lifecycle.events)

    def knows(self) -> set[uuid.UUID]:
        """Return the runs whose settle is kept here, or whose event."""
        owed = {run.identity.run_id for run in self._runs.values() if run.outcome is Outcome.PENDING}
        return owed | {uuid.UUID(json.loads(message.body)["run_id"]) for message in self._lifecycle.events._kept}

    def queue_of(self, run_id: uuid.UUID) -> int:
        """Return the queue of a run's event."""
        settings = self._world.settings
        return queue_of(shard_of(self._runs[run_id].identity.client_id, settings.shards), settings.usage_queues)

    @property
    def refused(self) -> set[uuid.UUID]:
        """The runs of which it was told that no bucket takes them now."""
        return self._lifecycle.refused

    def step(self) -> None:
        """Do one thing; raises `Killed`."""
        now = self._world.clock.elapsed_ms
        if now >= self._renew_at:
            self._renew_at = now + int(self._world.settings.lease_seconds * 1_000 / RENEWALS_PER_LEASE)
            self._lifecycle.renewal.renew()
        if now >= self._pay_at:
            self._pay_at = now + 1_000
            self._lifecycle.pending.pay()
        chance = self._world.chance
        if self._running and not chance.once_in(4):
            delivery = chance.one_of(self._running)
            if next(delivery.steps, _OVER) is _OVER:
                self._running.remove(delivery)
        elif len(self._running) < TASKS_MAX and (message := self._world.next_message()) is not None:
            self._running.append(_Delivery(message=message, steps=self._deliver(message)))

    def unacked(self) -> list[Message]:
        """Return the messages that this process has not acked."""
        return [delivery.message for delivery in self._running]

    def stop(self) -> None:
        """Stop in good order: what runs comes to its end, or to the end of its time; then what is owed is paid."""
        if self._world.chance.once_in(2):
            for delivery in list(self._running):
                for _ in delivery.steps:
                    pass
                self._running.remove(delivery)
        self._world.observed.excuses.stopping()
        with pytest.MonkeyPatch.context() as patch:
            for module in (pending, publishing):
                patch.setattr(module, "time", self._waits)
            self._lifecycle.close()

    def _deliver(self, message: Message) -> Iterator[None]:
        """Deliver a message, from its reserve to its ack; each step may be the last one."""
        world, lifecycle = self._world, self._lifecycle
        try:
            run = self._begin(message)
        except Retryable:
            world.send(replace(message, not_before_ms=world.clock.elapsed_ms + 5_000))
            world.ack(message)
            return
        except BillingError as refused:
            world.ack(message)
            world.refused(message, refused)
            return
        world.tell(run.identity.run_id, f"runs in process {self.number}, attempt {message.retries}")
        yield
        if message.recorded is not None:
            self._record(run, message)
            yield
        match message.outcomes[min(message.retries, len(message.outcomes) - 1)]:
            case "success":
                world.succeeded(run, message, self)
                yield
                lifecycle.succeed(run)
                yield
                lifecycle.end(run, SUCCESS, None)
            case "failure":
                world.store(message, FAILURE)
                yield
                lifecycle.end(run, FAILURE, None)
            case "retry":
                seconds = world.chance.whole(1, 120)
                again = replace(message, retries=message.retries + 1)
                world.send(replace(again, not_before_ms=world.clock.elapsed_ms + seconds * 1_000))
                world.store(message, RETRY)
                yield
                lifecycle.end(run, RETRY, _Retry(seconds))
        yield
        world.observed.check_ack(run.identity.run_id, self)
        world.ack(message)

    def _record(self, run: Run, message: Message) -> None:
        recorded, failures = message.recorded or 0, self._buckets.failures["stage"]
        run.recorder.record(recorded)
        if self._buckets.failures["stage"] == failures:
            price = self._world.book.lookup(message.sku, self._world.clock.ms).credits_per_unit
            self._world.observed.drafts.check_recorded(run.identity.run_id, recorded * price)

    def _begin(self, message: Message) -> Run:
        definition = Definition(
            task=TASK,
            sku=message.sku,
            client="client_id",
            quantity=message.quantity,
            reserve=None,
            signature=_NO_ARGUMENTS,
        )
        identity = identify(message, message.client_id, definition.task)
        run = self._lifecycle.prepare_run(definition, identity, message, ((), {}))
        self._lifecycle.hold(run)
        self._runs[run.identity.run_id] = run
        self._world.observed.excuses.attempts[run.settlement_id] = self
        return run


@dataclass(frozen=True)
class _Retry:
    when: int


class Results:
    """The result backend: it never writes over a success."""

    def __init__(self) -> None:
        self.states: dict[str, StoredResult] = {}

    def store(self, task_id: str, result: StoredResult) -> None:
        """Store how a task stands."""
        if task_id not in self.states or self.states[task_id].state != SUCCESS:
            self.states[task_id] = result

    def read(self, task_id: str) -> StoredResult:
        """Return how a task stands."""
        return self.states.get(task_id, StoredResult(state="PENDING"))


__all__ = ["Killed", "Process", "Results"]
