"""What processes and the one who leads them tell each other, and what all of them know. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from billing.core.clock import SystemClock, from_milliseconds, to_milliseconds
from billing.core.shards import shard_of
from billing.credits.terms import ORDINARY, ClientTerms, GrantTerms

SHARDS: Final = 8
SKUS: Final = ("page", "image", "sku-0")
#: How the buckets are made: no lease or settled id ends by itself, and no outbox gets full.
OPTIONS: Final[Mapping[str, Any]] = {
    "lease_seconds": 86_400.0,
    "settled_retention_seconds": 86_400.0,
    "outbox_entries_max": 10**9,
}
#: How far a process' clock is set from the right time, either way.
CLOCK_MS: Final = 600_000


class Breach(AssertionError):
    """A law does not hold; the run by which that was seen, if it was one."""

    def __init__(self, text: str, run_id: UUID | None = None) -> None:
        super().__init__(text)
        self.run_id = run_id


class MovedClock:
    """A machine's clock, which is set to another time now and then."""

    def __init__(self) -> None:
        self._true = SystemClock()
        self.offset_ms = 0

    def now(self) -> datetime:
        """Return what this machine takes for the time."""
        return from_milliseconds(self.ms)

    @property
    def ms(self) -> int:
        """The same in milliseconds since the Unix epoch."""
        return self.true_ms + self.offset_ms

    @property
    def true_ms(self) -> int:
        """The right time, which a database's clock shows."""
        return to_milliseconds(self._true.now())


@dataclass(kw_only=True, slots=True)
class Row:
    """A row of the ledger: a grant, a void, an adjustment or a client's terms. `applied`: its bucket has it.

    `shares` is what an adjustment took from each grant. `at_ms` is when a void was written.
    """

    kind: str
    row_id: int
    client_id: str
    grant_id: int = 0
    credits: int = 0
    terms: GrantTerms = ORDINARY
    client: ClientTerms = ClientTerms()
    at_ms: int = 0
    applied: bool = False
    shares: Mapping[int, int] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, slots=True)
class Batch:
    """What a process wrote to the ledger and published since it last told: rows come before events."""

    rows: list[Row]
    events: list[bytes]


@dataclass(frozen=True, kw_only=True, slots=True)
class Asserted:
    """A process has asserted the holds of its running attempts; `lost` of them were not there."""

    runs: frozenset[UUID]
    lost: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AtRest:
    """A process waits for nothing: all that it knows of its runs, as they must be in Redis and in the log.

    `holds`: run to (client, credits). `admitted`: client to what its open holds and its settled runs had of holds.
    `succeeded`: run to what each of its settlements charged.
    """

    holds: Mapping[UUID, tuple[str, int]]
    admitted: Mapping[str, int]
    succeeded: Mapping[UUID, frozenset[int]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Broken:
    """A process has seen a breach, and ends."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Over:
    """A process ends; what it has done and met."""

    counts: Counter[str]


@dataclass(frozen=True, kw_only=True, slots=True)
class Go:
    """Work on these clients, and the hot one, until so many operations are answered.

    `owned` are those whose ledger this process writes. All write the hot one's; who `leads` gives it its terms.
    """

    clients: tuple[str, ...]
    owned: tuple[str, ...]
    hot: str
    leads: bool
    operations: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Assert:
    """Redis was lost: assert the holds of what runs, and tell all that was written and published before."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recovered:
    """All shards are trusted. `orphans`: holds that nobody had asserted. `logged`: holds that the log had charged."""

    orphans: frozenset[UUID]
    logged: frozenset[UUID]


@dataclass(frozen=True, kw_only=True, slots=True)
class Rest:
    """Come to rest: ask again whatever was not answered."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Forget:
    """All clients but one are gone for good."""

    hot: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Describe:
    """Say all that is known of a run."""

    run_id: UUID


@dataclass(frozen=True, kw_only=True, slots=True)
class Described:
    """What a process knows of a run; nothing, if it is another's."""

    text: str


@dataclass(frozen=True, kw_only=True, slots=True)
class End:
    """Tell what you have counted, and end."""


def shard(client_id: str) -> int:
    """Return a client's shard."""
    return shard_of(client_id, SHARDS)
