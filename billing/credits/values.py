"""What goes into a bucket call and what comes out: frozen values, and one outcome per reason.

Everything that can normally happen is an outcome; only a server that does not answer, or a key that comes back with
other content, is raised. Amounts are whole credits, times are milliseconds of Redis' clock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from uuid import UUID

from msgspec import Struct

from billing.credits.posting import Posted
from billing.credits.terms import ORDINARY, ClientTerms, GrantTerms


class ReserveOutcome(Enum):
    """Why a run may start, or may not. Only `HELD` and `TAKEN_OVER` admit it."""

    HELD = "HELD"
    #: The run had a hold: it belongs to this attempt now, topped up where the need is larger.
    TAKEN_OVER = "TAKEN_OVER"
    SETTLED = "SETTLED"
    INSUFFICIENT = "INSUFFICIENT"
    UNKNOWN_CLIENT = "UNKNOWN_CLIENT"
    RECOVERING = "RECOVERING"
    OUTBOX_FULL = "OUTBOX_FULL"
    #: The run id is held for another client or SKU.
    CONFLICT = "CONFLICT"
    #: The id's time is more than a day ahead of Redis' clock.
    AHEAD = "AHEAD"
    SUSPENDED = "SUSPENDED"
    CLOSED = "CLOSED"
    CORRUPT = "CORRUPT"


class SettleOutcome(Enum):
    """What `settle` did. Only `SETTLED` and `ALREADY` mean that the run is charged."""

    SETTLED = "SETTLED"
    #: This or another settlement has charged the run before; nothing was taken.
    ALREADY = "ALREADY"
    RECOVERING = "RECOVERING"
    UNKNOWN_CLIENT = "UNKNOWN_CLIENT"
    #: The debt would lift a sum of the bucket above 2^53 - 1; nothing was changed.
    TOO_LARGE = "TOO_LARGE"
    CORRUPT = "CORRUPT"


class ReleaseOutcome(Enum):
    """What `release` did."""

    RELEASED = "RELEASED"
    NOTHING = "NOTHING"
    #: The hold belongs to another attempt and stays.
    STALE = "STALE"
    SETTLED = "SETTLED"
    RECOVERING = "RECOVERING"
    CORRUPT = "CORRUPT"


class RenewOutcome(Enum):
    """What `renew` found."""

    RENEWED = "RENEWED"
    GONE = "GONE"
    SETTLED = "SETTLED"
    RECOVERING = "RECOVERING"


class ExpireOutcome(Enum):
    """What `expire` did."""

    EXPIRED = "EXPIRED"
    NOTHING = "NOTHING"
    NOT_DUE = "NOT_DUE"
    RECOVERING = "RECOVERING"
    CORRUPT = "CORRUPT"


class GrantOutcome(Enum):
    """What `grant` did. `GRANTED` and `ALREADY` mean that the bucket has the grant."""

    GRANTED = "GRANTED"
    ALREADY = "ALREADY"
    UNKNOWN_CLIENT = "UNKNOWN_CLIENT"
    RECOVERING = "RECOVERING"
    #: 64 grants of the client are usable already.
    TOO_MANY = "TOO_MANY"
    #: A sum of the bucket would pass 2^53 - 1.
    TOO_LARGE = "TOO_LARGE"
    #: The same grant id came before with another amount.
    CONFLICT = "CONFLICT"
    CORRUPT = "CORRUPT"


class OpenOutcome(Enum):
    """What `open_client` did."""

    OPENED = "OPENED"
    ALREADY = "ALREADY"
    RECOVERING = "RECOVERING"
    #: What the client was granted is remembered, though its bucket is gone: it is rebuilt, not opened as new.
    LOST = "LOST"


class AssertOutcome(Enum):
    """What `assert_hold` did."""

    #: A hold was written; while recovering it has no grants yet, a rebuild allots them.
    ASSERTED = "ASSERTED"
    RENEWED = "RENEWED"
    SETTLED = "SETTLED"
    CORRUPT = "CORRUPT"


class RebuildOutcome(Enum):
    """What `rebuild` did."""

    REBUILT = "REBUILT"
    #: The shard is open and the bucket is of this epoch: nothing was changed.
    ALREADY = "ALREADY"
    #: The bucket is of a newer epoch: another rebuilder came first.
    STALE = "STALE"
    #: The shard is open and has the bucket: close the shard first.
    OPEN = "OPEN"
    #: Another server answers, or holds changed since the plan was made: plan again.
    MOVED = "MOVED"


class Hold(Struct, frozen=True, kw_only=True):
    """What an attempt asks to reserve. `head` and `lines` are the draft of its usage event, opaque here."""

    run_id: UUID
    client_id: str
    sku: str
    credits: int
    token: str
    price_version: int
    attempt: int
    head: bytes
    lines: bytes
    lease_seconds: float | None = None


class ReserveReply(Struct, frozen=True, kw_only=True):
    """The answer to `reserve`.

    `available` is filled when it was not enough: what the client could have had, a hold of the same run included.
    `held` is what the run holds now. `price_version` is that of the first reserve. `head` and `lines` are the stored
    draft that a takeover found. `left`: entries that were to be removed with it, and are not yet.
    """

    outcome: ReserveOutcome
    required: int
    available: int = 0
    held: int = 0
    price_version: int = 0
    head: bytes = b""
    lines: bytes = b""
    left: Sequence[tuple[int, str]] = ()


class Settlement(Struct, frozen=True, kw_only=True):
    """One act of settling: a JSON `head`, and per line a JSON `fragment` (both unclosed) and the credits it costs."""

    run_id: UUID
    client_id: str
    sku: str
    settlement_id: str
    head: bytes
    fragments: tuple[bytes, ...]
    amounts: tuple[int, ...]


class SettleReply(Struct, frozen=True, kw_only=True):
    """The answer to `settle`.

    `event` and `entry_id` are the outbox entry: what to publish, and what to `forget` once it is confirmed. A repeat
    of the same settlement gets them again while the entry is there. `debt` is what nothing covered.
    """

    outcome: SettleOutcome
    event: bytes | None = None
    entry_id: str | None = None
    late: bool = False
    debt: int = 0
    settlement_id: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class StoredHold:
    """A hold as it stands in Redis. `grants` says how much each grant lent; less than `credits` if it was forced."""

    run_id: UUID
    client_id: str
    sku: str
    token: str
    credits: int
    grants: Mapping[int, int]
    price_version: int
    attempt: int
    created_ms: int
    deadline_ms: int
    head: bytes
    lines: bytes
    epoch: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SettledRun:
    """What is remembered of a settled run, for the retention. `entry_id`: where its event was in the outbox."""

    run_id: UUID
    client_id: str
    settlement_id: str
    entry_id: str


@dataclass(frozen=True, kw_only=True, slots=True)
class GrantBalance:
    """One grant of a bucket: `granted = available + held + spent + repaid + expired + voided` (L2).

    What a grant whose time is over still has counts as expired, also before `lapse` has moved it.
    """

    grant_id: int
    granted: int
    available: int = 0
    held: int = 0
    spent: int = 0
    repaid: int = 0
    expired: int = 0
    voided: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Balance:
    """A bucket: `granted + owed = available + held + spent + expired + voided` (L2).

    `debt` is all that nothing covered when it was settled, ever; it is part of `spent`. `adjusted_debt` is the same of
    adjustments, and part of `voided`. `room` is what holds were lent of the overdraft; it is part of `held` and `owed`.
    `beyond` is the part of `debt` that the log counts as paid by a grant which had no more; `posted` what was posted.
    """

    client_id: str
    epoch: int
    grants: tuple[GrantBalance, ...]
    order: tuple[int, ...]
    debt: int
    owed: int
    available: int
    held: int
    spent: int
    granted: int
    expired: int = 0
    voided: int = 0
    adjusted_debt: int = 0
    room: int = 0
    terms: ClientTerms = ClientTerms()
    grant_terms: Mapping[int, GrantTerms] = field(default_factory=dict)
    beyond: Mapping[int, int] = field(default_factory=dict)
    posted: Mapping[int, Posted] = field(default_factory=dict)

    def usable(self, sku: str) -> int:
        """Return what a reserve for this SKU could have, overdraft included; nothing while too much is owed."""
        room = self.terms.overdraft_limit - self.owed
        if room < 0:
            return 0
        fits = (grant.available for grant in self.grants if self.grant_terms.get(grant.grant_id, ORDINARY).fits(sku))
        return sum(fits) + room


@dataclass(frozen=True, kw_only=True, slots=True)
class Overdue:
    """The holds whose lease has run out. `paused`: none is named, since the shard was away or is recovering (L5)."""

    held: list[StoredHold]
    paused: bool
