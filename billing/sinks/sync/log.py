"""Where increments are kept: what planner, pusher, confirmer and reports need of it, and what it guarantees.

Guarantee: each method is one transaction, except that all of a `Plan` is one. Decisions are functions that are given:
they see the increment as it is under its lock, and what they return is written, or nothing is. PostgreSQL's is
`postgres_log.py`; another one must pass the same contract (tests/contract/increments).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from enum import Enum
from typing import Protocol

from billing.sinks.sink import ErrorReport, Payload
from billing.sinks.sync.increment import Attempt, Increment
from billing.sinks.sync.planning.drafts import Meters, Planned, Unplanned
from billing.sinks.sync.planning.period_source import PeriodsFound
from billing.sinks.sync.planning.periods import KnownPeriod

#: Returns the increment as it is to be, or None to leave it as it is.
Decide = Callable[[Increment], Increment | None]
#: The same of an answer: what the attempt is noted with is written as well (None: the attempt stays as it is).
Noted = Callable[[Increment], tuple[Increment | None, Attempt | None]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Open:
    """What a search for increments is limited to: whose books, as of when, how many.

    `client_id`: only this client's; `without`: no increments of these meters.
    """

    books: str
    now: datetime
    most: int
    client_id: str | None = None
    without: tuple[str, ...] = ()


class Having(Enum):
    """What a client must have so that its usage can be planned at all."""

    NOTHING = "nothing"
    KNOWN_PERIOD = "known period"
    OPEN_PERIOD = "open period"
    #: One that is over, and not closed yet: what was used in it is due.
    CLOSING_PERIOD = "closing period"


class Plan(Protocol):
    """One slice of a plan: a transaction that holds the lead."""

    def meters(self) -> Meters:
        """Return which meter counts which SKU, and how many credits a unit of each is."""
        ...

    def unplanned(self, *, after: str, rows: int, having: Having, now: datetime) -> Sequence[Unplanned]:
        """Lock and return at most `rows` rows of what is unplanned, of the next linked clients after one.

        In the order of clients, SKUs, hours. Clients that do not have what they need at `now` are left out.
        """
        ...

    def customers(self, client_ids: Sequence[str]) -> Mapping[str, str]:
        """Return the present customers of those of some clients that are linked."""
        ...

    def periods(self, customer_ids: Sequence[str]) -> Mapping[tuple[str, str], Sequence[KnownPeriod]]:
        """Return the known periods by (customer, meter), the oldest first."""
        ...

    def taken(self, asked: Sequence[tuple[str, str, datetime]], *, most: int) -> list[set[datetime]]:
        """Return for each (customer, meter, latest) the minutes that increments have, from `latest` back.

        Those of given up generations, too: what is shown there may still be theirs.
        """
        ...

    def write(self, planned: Sequence[Planned]) -> None:
        """Write increments with their parts, and advance what the rows have planned."""
        ...

    def to_reissue(self, *, after: int, now: datetime, most: int) -> Sequence[Increment]:
        """Lock and return what `protocol.needs_reissue`, by `increment_id`. What somebody else has locked is left."""
        ...

    def first_hour(self, increment_id: int) -> datetime:
        """Return the first hour of usage that an increment carries."""
        ...

    def replace(self, increment: Increment) -> None:
        """Write an increment as it is to be: its next generation, or the same one with another state or reason."""
        ...


class PlanningLog(Protocol):
    """What the planner needs of the log."""

    def planning(self, *, client_id: str | None = None) -> AbstractContextManager[Plan | None]:
        """Begin a slice of a plan, of one client if one is given; None when another planner leads."""
        ...

    def find_unread(
        self, *, now: datetime, before: datetime, most: int, meter: str, client_id: str | None = None
    ) -> list[str]:
        """Return customers with a whole unit to plan, or left to send, who were not read since `before`.

        `meter` counts the SKUs that have none of their own. First come those without a period that covers `now` and
        without a reason for it, then those read longest ago.
        """
        ...

    def count_waiting(self, *, having: Having, now: datetime, client_id: str | None = None) -> Mapping[str, int]:
        """Return how many clients with unplanned usage a plan leaves out at `now`, by the reason that the sink gave."""
        ...

    def keep_periods(self, customer_id: str, found: PeriodsFound | None, *, read_at: datetime) -> None:
        """Keep what was read of a customer: `periods.merged`. Increments that are open close as `periods.closing` says.

        `found` is None when nothing could be read: then only when it was tried is kept.
        """
        ...


class IncrementLog(PlanningLog, Protocol):
    """Increments, their attempts, and the reports about them."""

    def find_lost(self, found: Open) -> list[int]:
        """Return what is `sending` with a lease that has ended, or ends later than any can: `protocol.is_lost`."""
        ...

    def find_open(self, found: Open) -> list[Increment]:
        """Return what may be sent (`protocol.may_send`), those first that were tried least, then by their id."""
        ...

    def find_unconfirmed(self, found: Open) -> list[Increment]:
        """Return what the sink's own sums may prove (`looks.may_check`).

        Those first that were never looked at, then those that were longest ago, then by their id.
        """
        ...

    def claim(self, increment_id: int, decide: Decide) -> Increment | None:
        """Take an increment for a call, and write its latest attempt down, as begun at `last_attempt_at`.

        None when `decide` says so, when somebody else has the customer, or when another increment of its customer and
        meter is in flight.
        """
        ...

    def note(self, increment_id: int, decide: Noted) -> Increment | None:
        """Note the answer to an attempt; return the increment as it is then."""
        ...

    def change(self, increment_id: int, decide: Decide) -> Increment | None:
        """Change an increment; return it as it is then, None when nothing was changed."""
        ...

    def sent_before(self, increment_id: int) -> Sequence[Payload]:
        """Return the generations before its present one for which a call was begun, where they lie elsewhere.

        Those in one minute are one of them; what lies in its present minute is not among them.
        """
        ...

    def doubted_by(self, increment_id: int) -> str | None:
        """Return the code of the first report that may be about a call of it without naming it: `afterwards.doubts`.

        First by the end of its window, then by its event's id; None: there is none.
        """
        ...

    def add_reports(self, reports: Sequence[ErrorReport], now: datetime) -> list[tuple[ErrorReport, list[int]]]:
        """Keep reports that are new, with the increments whose attempts they name; return all that were given."""
        ...

    def reported_until(self) -> datetime | None:
        """Return the latest end of a window that a report is about; None before the first report."""
        ...
