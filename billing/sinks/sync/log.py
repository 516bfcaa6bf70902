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
from typing import Protocol

from billing.sinks.sink import ErrorReport
from billing.sinks.sync.drafts import Planned, Unplanned
from billing.sinks.sync.increment import Attempt, Increment
from billing.sinks.sync.periods import KnownPeriod

#: Returns the increment as it is to be, or None to leave it as it is.
Decide = Callable[[Increment], Increment | None]
#: The same of an answer: what the attempt is noted with is written as well.
Noted = Callable[[Increment], tuple[Increment | None, Attempt]]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Open:
    """What a search for increments is limited to: whose books, as of when, how many."""

    books: str
    now: datetime
    most: int


class Plan(Protocol):
    """One slice of a plan: a transaction that holds the lead."""

    def unplanned(self, *, after: str) -> Sequence[Unplanned]:
        """Lock and return what is unplanned of the next linked clients, in the order of clients, SKUs, hours."""
        ...

    def periods(self, client_ids: Sequence[str]) -> Mapping[tuple[str, str], Sequence[KnownPeriod]]:
        """Return the known periods by (customer, meter), the oldest first."""
        ...

    def taken(self, asked: Sequence[tuple[str, str, datetime]], *, most: int) -> list[set[datetime]]:
        """Return for each (customer, meter, latest) the minutes that increments have, from `latest` back."""
        ...

    def write(self, planned: Sequence[Planned]) -> None:
        """Write increments with their parts, and advance what the rows have planned."""
        ...

    def to_reissue(self, *, now: datetime, most: int) -> Sequence[Increment]:
        """Lock and return what cannot be sent as it is: `protocol.needs_reissue`."""
        ...

    def replace(self, increment: Increment) -> None:
        """Write an increment's next generation; the one before stays on record."""
        ...


class IncrementLog(Protocol):
    """Increments, their attempts, and the reports about them."""

    def planning(self) -> AbstractContextManager[Plan | None]:
        """Begin a slice of a plan; None when another planner leads."""
        ...

    def find_lost(self, found: Open) -> list[int]:
        """Return what is `sending` with a lease that has ended, or ends later than any can."""
        ...

    def find_open(self, found: Open) -> list[Increment]:
        """Return what may be sent, those first that were tried least."""
        ...

    def find_unconfirmed(self, found: Open) -> list[Increment]:
        """Return what the sink's own sums may prove, those first that were read longest ago."""
        ...

    def claim(self, increment_id: int, decide: Decide) -> Increment | None:
        """Take an increment for a call, and write its attempt down.

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

    def add_reports(self, reports: Sequence[ErrorReport], now: datetime) -> list[tuple[ErrorReport, list[int]]]:
        """Keep reports that are new, with the increments whose attempts they name; return all that were given."""
        ...

    def reported_until(self) -> datetime | None:
        """Return up to when reports were read; None before the first."""
        ...
