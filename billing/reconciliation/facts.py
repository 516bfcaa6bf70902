"""What the books say of a client, as the laws take it: plain values, read by `reading.py`. Credits are whole.

Grants are (grant id → credits); grant 0 is debt: what no grant covered when it was settled.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from datetime import datetime

from billing.credits.posting import Posted


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GrantFacts:
    """A grant in `credit_grant` (None: it is not there), and what the ledger says of it.

    `ended`: what expired, was voided or was adjusted away, of a grant whose end is entered.
    """

    credits: int | None
    applied: bool
    entries: int
    entered: int
    ended: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Charged:
    """What the log charged within one millisecond of Redis' clock, in one epoch."""

    at_ms: int
    epoch: int
    grants: Mapping[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LedgerFacts:
    """What PostgreSQL has for a client's bucket, at one instant.

    `spent` is `grant_spent`. `tail` is the part of the log that is not older than the bucket's reading, `rebuild` the
    reason why the client's shard waits for a rebuild, if it does. `posted` is what the bucket is to be told besides its
    own settles, at this epoch: what of that it has, it says itself.
    """

    client_id: str
    epoch: int
    grants: Mapping[int, GrantFacts]
    spent: Mapping[int, int]
    tail: tuple[Charged, ...] = ()
    rebuild: str | None = None
    posted: Mapping[int, Posted] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class BrokenRun:
    """A run whose lines are not those of one settlement, from 0 on."""

    run_id: uuid.UUID
    lines: int
    first_line: int
    last_line: int
    settlements: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class UnpaidLine:
    """A line of the log whose grants paid something else than it cost."""

    run_id: uuid.UUID
    line: int
    credits: int
    paid: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RollupRow:
    """A (SKU, hour) in which the log and `usage_rollup` differ; None: that one has no such row.

    Credits are what is left after what corrections `returned`.
    """

    sku: str
    hour: datetime
    logged_credits: int | None
    logged_quantity: int | None
    rolled_credits: int | None
    rolled_quantity: int | None
    logged_returned: int | None = None
    rolled_returned: int | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LogFacts:
    """What the usage history has of a client, and what was derived from it in the same transactions.

    `unpaid` counts all lines whose grants did not pay what they cost; `unpaid_lines` are the first of them.
    `corrections` are the first runs of which the log and `usage_correction` say different things, or that are corrected
    by more than they were charged.
    """

    client_id: str
    rows: int = 0
    runs: int = 0
    credits: int = 0
    grants: Mapping[int, int] = dataclasses.field(default_factory=dict)
    spent: Mapping[int, int] = dataclasses.field(default_factory=dict)
    rolled_rows: int = 0
    rolled_credits: int = 0
    differing_rollups: tuple[RollupRow, ...] = ()
    broken_runs: tuple[BrokenRun, ...] = ()
    unpaid: int = 0
    unpaid_lines: tuple[UnpaidLine, ...] = ()
    corrections: tuple[uuid.UUID, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlannedRow:
    """A rollup row whose parts do not tile what is planned of it. `increments`: those that carry a part.

    `beyond`: more is planned than was used, or than was returned.
    """

    sku: str
    hour: datetime
    credits: int | None
    planned: int | None
    parts: int
    tiled: bool
    beyond: bool
    increments: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class DifferingIncrement:
    """An increment whose parts are not its units in credits, or lie outside its period, or that is odd otherwise.

    `odd` are columns that do not fit the rows that they are to be like; `laws.planned` has the words.
    """

    increment_id: int
    units: int
    parts: int
    outside: int
    credits_per_unit: int = 1
    odd: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class InvoiceFacts:
    """What a client's rollups and increments say: credits, planned, and the credits of increments by state."""

    client_id: str
    credits: int = 0
    planned: int = 0
    logged: int = 0
    increments: int = 0
    by_state: Mapping[str, int] = dataclasses.field(default_factory=dict)
    differing_rows: tuple[PlannedRow, ...] = ()
    differing_increments: tuple[DifferingIncrement, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PeriodFacts:
    """What was sent to Stripe for a customer, meter and period, as meter events.

    `known`: Stripe has accepted it. `fresh`: the part of that which its summaries may not show yet. `doubtful`: nobody
    knows whether Stripe has it. `open_units` are the units of each increment that is fresh or doubtful; None: they are
    too many to name, or have moved. `increments` are those behind these numbers, bounded.
    """

    client_id: str
    customer_id: str
    event_name: str
    period_start: datetime
    period_end: datetime
    #: The kind of key that it was sent with: another one's totals say nothing about it.
    books: str = ""
    #: Whether its meter is one that increments are planned for, now.
    is_ours: bool = True
    known: int = 0
    fresh: int = 0
    doubtful: int = 0
    open_units: tuple[int, ...] | None = ()
    increments: tuple[int, ...] = ()
