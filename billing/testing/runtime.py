"""The services of a process under test: the twin, prices and a publisher in memory, and no thread of billing's own."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Sequence
from typing import Final, NoReturn

import sqlalchemy

from billing.catalog.price_book import Price, PriceBook
from billing.catalog.price_cache import PriceCache
from billing.core.clock import Clock
from billing.core.errors import BillingError, Fatal, Recovering, UnknownClient
from billing.core.settings import Settings
from billing.credits.options import options_of
from billing.credits.twin.buckets import Twin
from billing.credits.twin.memory import Memory
from billing.events.links import Outgoing
from billing.events.publisher import Publisher
from billing.events.usage_event import UsageEvent
from billing.fulfillment.decoder import decode
from billing.task.counting import Counting
from billing.task.lifecycle import Lifecycle
from billing.task.modes import Modes
from billing.task.records import Records
from billing.task.renewal import Renewal
from billing.task.run import Run
from billing.task.runtime import Runtime

#: A broker that confirms nothing: an event's outbox entry is removed where its row would be written, in `Published`.
_NO_CONFIRMS: Final = "redis://127.0.0.1:1/0"


class TwinRuntime(Runtime):
    """A runtime that reaches no server."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        settings = dataclasses.replace(settings, broker_url=_NO_CONFIRMS, publish="confirm")
        super().__init__(lambda: settings, clock)
        self.memory = Memory(clock)
        self.twin = Twin(self.memory, **options_of(settings))
        for shard in range(settings.shards):
            self.twin.verify(shard, expected=None)
        self.published = Published(settings, self.twin)
        self.price_list = PriceList(settings, clock)
        self.clients: set[str] = set()

    @property
    def buckets(self) -> Twin:
        """The twin."""
        return self.twin

    @property
    def records(self) -> Records:
        """The clients that the test has added, and the runs that it has charged."""
        return TwinRecords(self)

    @property
    def prices(self) -> PriceCache:
        """The prices that the test has set."""
        return self.price_list

    @property
    def publisher(self) -> Publisher:
        """What keeps the events."""
        return self.published

    @property
    def engine(self) -> sqlalchemy.Engine:
        """Refused: what asks PostgreSQL is to be tested on one."""
        return _refused()


class Published(Publisher):
    """Keeps the events that would have been published, in their order; each is in the log at once."""

    def __init__(self, settings: Settings, twin: Twin) -> None:
        super().__init__(settings)
        self._twin = twin
        self.events: list[UsageEvent] = []

    def publish_batch(self, queue_number: int, messages: Sequence[Outgoing]) -> None:  # noqa: ARG002 - one list
        """Decode events as the consumer does, and keep those that the log has not yet (L3)."""
        for message in messages:
            event = decode(message.body)
            if not isinstance(event, UsageEvent):
                raise Fatal(f"usage event: {message.body!r}: the consumer would not take it")
            if event.run_id not in {known.run_id for known in self.events}:
                self.events.append(event)
            if message.entry_id is not None:
                self._twin.forget([(message.shard, message.entry_id)])


class PriceList(PriceCache):
    """A price book that the test writes; it is never old."""

    def __init__(self, settings: Settings, clock: Clock) -> None:
        super().__init__(
            _refused,
            refresh_seconds=settings.price_refresh_seconds,
            age_max_seconds=settings.price_age_max_seconds,
            wait_seconds=0,
            clock=clock,
        )
        self._book = PriceBook(())

    def add(self, price: Price) -> None:
        """Add a price; its version is the book's next one."""
        known = self._book.prices()
        self._book = PriceBook([*known, dataclasses.replace(price, version=len(known) + 1)])

    def get(self) -> PriceBook:
        """Return the book."""
        return self._book

    def renewed(self) -> PriceBook:
        """Return the book."""
        return self._book


class TwinRecords:
    """What PostgreSQL would know."""

    def __init__(self, runtime: TwinRuntime) -> None:
        self._runtime = runtime

    def check_client(self, client_id: str) -> None:
        """Raise `UnknownClient` unless the test has added the client."""
        if client_id not in self._runtime.clients:
            raise UnknownClient(client_id)

    def check_active(self, client_id: str) -> None:
        """Raise `UnknownClient` unless the test has added the client; the twin is never away, and knows its state."""
        self.check_client(client_id)

    def is_charged(self, run_id: uuid.UUID) -> bool:
        """Return whether the event of a run was published."""
        return any(event.run_id == run_id for event in self._runtime.published.events)

    def told_charges(self, runs: Sequence[tuple[str, uuid.UUID]]) -> set[uuid.UUID]:
        """Return which of these runs were published: nothing is on its way here."""
        return {run_id for _, run_id in runs if self.is_charged(run_id)}

    def without_bucket(self, client_id: str, *, missing: bool, corrupt: bool = False) -> BillingError:  # noqa: ARG002
        """Return why there is no bucket to take from. None is ever corrupt here."""
        if missing and client_id not in self._runtime.clients:
            return UnknownClient(client_id)
        return Recovering(f"client {client_id!r}: its shard is being rebuilt; nothing is admitted until then")


class TwinLifecycle(Lifecycle):
    """A lifecycle without the threads that renew leases and count dry runs: the test's clock renews them."""

    def __init__(self, runtime: Runtime) -> None:
        super().__init__(runtime)
        self.renewal = _Unrenewed(runtime.settings.lease_seconds, self.keep, runtime.clock)
        self.modes = Modes(runtime, self.events, _CountingAtOnce(runtime, self.pending))


class _CountingAtOnce(Counting):
    def _soon(self) -> None:
        """Add it now: there is no thread."""
        self.add()


class _Unrenewed(Renewal):
    def add(self, run: Run) -> None:
        """Remember a run that is alive."""
        self._runs[id(run)] = run


def _refused() -> NoReturn:
    raise Fatal("under the twin there is no PostgreSQL: test what asks it on one (billing.embedded starts one)")
