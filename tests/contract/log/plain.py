"""The plainest log there is: dictionaries behind one lock. It shows that the suite asks for nothing of PostgreSQL's.

It is whole, but forgets all when the process ends. Its steps are methods, so that `test_suite.py` can break each.
"""

from __future__ import annotations

import dataclasses
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence

from billing.core.errors import Unreachable
from billing.events.usage_event import UsageEvent
from billing.fulfillment import usage_rows, verdicts
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.log import BatchReport, LogUnready, Unwritable, UsageLog
from billing.fulfillment.verdicts import KnownClient, Sorting
from tests.contract.log.store import Letter, Rollups, Row, Spent, rows_of
from tests.usage_events import paid_line

_BIGINT_MAX = 2**63 - 1


@dataclasses.dataclass(kw_only=True, slots=True)
class Books:
    """What is stored."""

    history: dict[uuid.UUID, list[Row]] = dataclasses.field(default_factory=dict)
    rollups: Rollups = dataclasses.field(default_factory=dict)
    spent: Spent = dataclasses.field(default_factory=dict)
    letters: dict[bytes, Letter] = dataclasses.field(default_factory=dict)
    markers: dict[uuid.UUID, int] = dataclasses.field(default_factory=dict)

    def copy(self) -> Books:
        """Return the same in dictionaries of its own."""
        return Books(**{field.name: dict(getattr(self, field.name)) for field in dataclasses.fields(self)})


class PlainLog:
    """Writes into the books of a store; a connection is lost when the store has cut it."""

    def __init__(self, store: PlainStore) -> None:
        self.store = store
        self.connected: int | None = None

    def write(self, batch: Sequence[Delivered]) -> BatchReport:
        """Write a batch into a copy of the books, and put it in their place."""
        if not batch:
            return BatchReport()
        with self.store.lock:
            self.check()
            books = self.begin()
            report = self.transact(books, batch)
            self.store.books = books
        return report

    def close(self) -> None:
        """Forget the connection."""
        self.connected = None

    def check(self) -> None:
        """Raise what stands in the way of any batch."""
        connected, self.connected = self.connected, self.store.cuts
        if connected not in (None, self.store.cuts):
            self.connected = None
            raise Unreachable("plain: the connection was lost")
        if not self.store.ready:
            raise LogUnready("plain: the books are not ready")

    def begin(self) -> Books:
        """Return what a batch is written into."""
        return self.store.books.copy()

    def transact(self, books: Books, batch: Sequence[Delivered]) -> BatchReport:
        """Write a batch into `books`."""
        sorting = verdicts.sort(batch)
        known = {client_id: KnownClient(shard=0, epoch=1) for client_id in self.store.clients}
        verdicts.refuse(sorting, known, int(time.time() * 1000))
        new = self.new(books, sorting)
        for event in new:
            self.keep(books, event)
        self.add(books, new)
        for message, reason in sorting.letters:
            books.letters.setdefault(message.body, Letter(message.body, _storable(reason), message.queue))
        books.markers |= {marker.token: marker.shard for marker in sorting.markers}
        return BatchReport(
            events=len(new),
            rows_inserted=sum(len(event.lines) for event in new),
            duplicates=len(sorting.events) - len(new),
            dead_letters=len(sorting.letters),
            markers=len(sorting.markers),
            dropped=sorting.dropped,
            refused_of=dict(sorting.refused_of),
        )

    def new(self, books: Books, sorting: Sorting) -> list[UsageEvent]:
        """Return the events that become rows."""
        return [event for run_id, event in verdicts.first_of_each_run(sorting).items() if run_id not in books.history]

    def keep(self, books: Books, event: UsageEvent) -> None:
        """Write the rows of an event."""
        if any(line.quantity > _BIGINT_MAX for line in event.lines):
            raise Unwritable("usage_history: quantity: is more than 63 bits")
        books.history[event.run_id] = rows_of(event)

    def add(self, books: Books, events: Iterable[UsageEvent]) -> None:
        """Add to the derived sums."""
        events = list(events)
        for client_id, sku, hour, credits_, quantity in zip(*usage_rows.rollups(events), strict=True):
            before = books.rollups.get((client_id, sku, hour), (0, 0))
            books.rollups[client_id, sku, hour] = before[0] + credits_, before[1] + quantity
        for client_id, grant, credits_ in zip(*usage_rows.spent(events), strict=True):
            books.spent[client_id, grant] = books.spent.get((client_id, grant), 0) + credits_


class _Nowhere(PlainLog):
    """A log whose server does not answer."""

    def check(self) -> None:
        """Answer nothing."""
        raise Unreachable("plain: nobody answers")


class PlainStore:
    """Books in memory; `kind` is the log that writes to them."""

    def __init__(self, kind: type[PlainLog] = PlainLog) -> None:
        self.kind, self.lock, self.books = kind, threading.Lock(), Books()
        self.clients: set[str] = set()
        self.cuts, self.ready = 0, True

    def log(self) -> UsageLog:
        """Make a log."""
        return self.kind(self)

    def log_without_server(self) -> UsageLog:
        """Make a log that reaches nobody."""
        return _Nowhere(self)

    def add_clients(self, *client_ids: str) -> None:
        """Add clients."""
        self.clients |= set(client_ids)

    def rows(self) -> list[Row]:
        """Return the history."""
        return sorted((row for rows in self.books.history.values() for row in rows), key=lambda r: (r.run_id, r.line))

    def rollups(self) -> Rollups:
        """Return the rollups."""
        return self.books.rollups

    def spent(self) -> Spent:
        """Return the grant sums."""
        return self.books.spent

    def letters(self) -> list[Letter]:
        """Return the dead letters."""
        return sorted(self.books.letters.values())

    def markers(self) -> list[tuple[uuid.UUID, int]]:
        """Return the markers."""
        return sorted(self.books.markers.items())

    def cut(self) -> None:
        """Cut every connection."""
        self.cuts += 1

    def make_unready(self) -> None:
        """Take no batch."""
        self.ready = False

    def make_ready(self) -> None:
        """Take batches again."""
        self.ready = True

    def refused(self) -> Mapping[str, dict[str, object]]:
        """Return the one value that it refuses."""
        return {"quantity past 63 bits": {"lines": (paid_line(quantity=2**63),)}}

    def close(self) -> None:
        """Do nothing: there is nothing open."""


def _storable(reason: str) -> str:
    return reason.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
