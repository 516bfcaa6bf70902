"""What a server would keep: per shard buckets, runs, leases, outbox, alerts and endings; one clock and one lock.

`restart`, `wipe` and `lose_bucket` are the losses that a server can suffer: until the shards are verified again every
verb says `RECOVERING` (L6).
"""

from __future__ import annotations

import functools
import threading
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Concatenate, Generic, ParamSpec, TypeVar
from uuid import UUID

from billing.core.clock import Clock, SystemClock, to_milliseconds
from billing.core.credits import NO_GRANT
from billing.core.shards import shard_of
from billing.credits.twin.book import Book
from billing.credits.twin.marks import Told
from billing.credits.values import Hold, StoredHold

Entry = TypeVar("Entry")
Reply = TypeVar("Reply")
Arguments = ParamSpec("Arguments")


class Stream(Generic[Entry]):
    """Entries under ids that only rise: time in ms, and a number; after a clock jump they run on from the future."""

    def __init__(self, most: int | None = None) -> None:
        self.entries: dict[str, Entry] = {}
        self._most = most
        self._last = (0, 0)

    def add(self, entry: Entry, now_ms: int) -> str:
        """Append an entry and return its id; past the bound the oldest goes (L9)."""
        last_ms, number = self._last
        self._last = (now_ms, 0) if now_ms > last_ms else (last_ms, number + 1)
        entry_id = f"{self._last[0]}-{self._last[1]}"
        self.entries[entry_id] = entry
        if self._most is not None and len(self.entries) > self._most:
            del self.entries[next(iter(self.entries))]
        return entry_id


@dataclass(kw_only=True, slots=True)
class HeldRun:
    """A run that is held: what its attempt asked for, and what each grant lent it, overdraft room as grant 0.

    `epoch` is that of the bucket that lent; 0 for a hold that was asserted without one.
    """

    hold: Hold
    lent: dict[int, int]
    epoch: int
    created_ms: int

    @property
    def client_id(self) -> str:
        """Whose run it is."""
        return self.hold.client_id

    def lent_by(self, book: Book | None) -> dict[int, int]:
        """Return what a bucket lent it: nothing, if it was lent by a bucket of another epoch."""
        return dict(self.lent) if book is not None and self.epoch == book.epoch else {}

    def grants_lent_by(self, book: Book) -> dict[int, int]:
        """Return the same without the overdraft's room, in the order in which it is charged."""
        return {grant: credits_ for grant, credits_ in self.lent_by(book).items() if grant != NO_GRANT}

    def stored(self, deadline_ms: int) -> StoredHold:
        """Return it as it is told."""
        hold = self.hold
        return StoredHold(
            run_id=hold.run_id,
            client_id=hold.client_id,
            sku=hold.sku,
            token=hold.token,
            credits=hold.credits,
            grants=dict(self.lent),
            price_version=hold.price_version,
            attempt=hold.attempt,
            created_ms=self.created_ms,
            deadline_ms=deadline_ms,
            head=hold.head,
            lines=hold.lines,
            epoch=self.epoch,
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class SettledRun:
    """A run that is charged, remembered until its retention is over."""

    settlement_id: str
    client_id: str
    entry_id: str
    until_ms: int


#: The newest alerts that are kept while nobody reads them (L9).
ALERTS_MAX = 10_000


@dataclass(kw_only=True, slots=True)
class Shard:
    """All that one shard keeps. `endings`: (grant, client) → when `lapse` is to look at it.

    `left` is what a lost bucket leaves where grants and debt are remembered apart from what is available.
    """

    server: str | None = None
    books: dict[str, Book] = field(default_factory=dict)
    left: dict[str, Book] = field(default_factory=dict)
    runs: dict[UUID, HeldRun | SettledRun] = field(default_factory=dict)
    leases: dict[UUID, int] = field(default_factory=dict)
    outbox: Stream[bytes] = field(default_factory=Stream)
    alerts: Stream[Told] = field(default_factory=lambda: Stream(ALERTS_MAX))
    endings: dict[tuple[int, str], int] = field(default_factory=dict)
    swept_ms: int = 0
    grace_ms: int = 0
    asserts: int = 0

    def run(self, run_id: UUID, now_ms: int) -> HeldRun | SettledRun | None:
        """Return a run, forgetting one whose retention is over."""
        run = self.runs.get(run_id)
        if isinstance(run, SettledRun) and now_ms > run.until_ms:
            del self.runs[run_id]
            return None
        return run

    def renew(self, run_id: UUID, deadline_ms: int) -> None:
        """Move a deadline, never backwards (L5)."""
        self.leases[run_id] = max(deadline_ms, self.leases.get(run_id, 0))

    def by_deadline(self) -> list[tuple[UUID, int]]:
        """Return (run id, deadline), the oldest deadline first."""
        return sorted(self.leases.items(), key=lambda lease: (lease[1], lease[0].hex))


class Memory:
    """What several twins may share, as several processes share a server."""

    def __init__(self, clock: Clock | None = None) -> None:
        self.clock = clock or SystemClock()
        self.lock = threading.RLock()
        self.shards: defaultdict[int, Shard] = defaultdict(Shard)
        #: What dry runs counted, and the additions that are in it.
        self.counted: dict[str, int] = {}
        #: The trail of each shard.
        self.notes: dict[int, list[bytes]] = {}
        self.additions: set[str] = set()
        self._started = 1

    @property
    def server(self) -> str:
        """The id of the server process that this would be."""
        return f"{self._started:040x}"

    def now_ms(self) -> int:
        """Return the time by which everything is judged."""
        return to_milliseconds(self.clock.now())

    def restart(self) -> None:
        """Be another server process with the same data: no shard is trusted until it is verified."""
        self._started += 1

    def wipe(self) -> None:
        """Lose everything."""
        with self.lock:
            self.shards.clear()
            self.counted.clear()
            self.notes.clear()
            self.additions.clear()

    def lose_bucket(self, client_id: str, shards: int, *, whole: bool = True) -> None:
        """Lose the bucket of one client; the holds that it lent to stay. Not whole: what it was granted stays too."""
        with self.lock:
            shard = self.shards[shard_of(client_id, shards)]
            book = shard.books.pop(client_id, None)
            if whole:
                shard.left.pop(client_id, None)
            elif book is not None and (book.accounts or book.total or book.adjustments or book.posted):
                shard.left[client_id] = book


class InMemory:
    """What the rooms of a twin share."""

    shards: int
    _memory: Memory
    _lease_ms: int
    _retention_ms: int
    _outbox_entries_max: int
    _percents: tuple[int, ...]

    def node_of(self, shard: int) -> str:  # noqa: ARG002 - a memory is one server, whichever the shard
        """Return the name of the server that has a shard: all have one."""
        return ""

    def _of(self, client_id: str) -> Shard:
        """Return the shard of a client."""
        return self._memory.shards[shard_of(client_id, self.shards)]

    def _recovering(self, shard: Shard) -> bool:
        """Whether a shard is not to be trusted: it was not verified on the server that answers (L6)."""
        return shard.server != self._memory.server

    def _milliseconds(self, lease_seconds: float | None) -> int:
        return self._lease_ms if lease_seconds is None else round(lease_seconds * 1_000)


Room = TypeVar("Room", bound=InMemory)


def atomic(verb: Callable[Concatenate[Room, Arguments], Reply]) -> Callable[Concatenate[Room, Arguments], Reply]:
    """Make a verb one step that no other verb comes between."""

    @functools.wraps(verb)
    def step(self: Room, /, *args: Arguments.args, **kwargs: Arguments.kwargs) -> Reply:
        with self._memory.lock:
            return verb(self, *args, **kwargs)

    return step
