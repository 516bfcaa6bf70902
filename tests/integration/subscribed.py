"""What the tests of plans by subscription share: a source of periods that a test writes, and a planner on it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta

from billing.core.errors import BillingError, Rejected
from billing.core.settings import StripeLateUsage
from billing.sinks.sync.planning.period_source import PeriodsFound
from billing.sinks.sync.planning.periods import KnownPeriod, closes_at
from billing.sinks.sync.planning.planner import ROWS, Planner, PlanReport, PlanRules
from billing.sinks.sync.postgres.log import PostgresLog
from tests.integration.syncing import METER, Syncing

GRACE = timedelta(hours=1)
#: Anchored on the 15th at an odd second.
FEBRUARY, MARCH, APRIL, MAY = (datetime(2026, month, 15, 14, 37, 12, tzinfo=UTC) for month in (2, 3, 4, 5))


@dataclasses.dataclass
class Periods:
    """A `PeriodSource` that says what a test has written into it, and counts who was asked for."""

    of: dict[str, Mapping[str, Sequence[KnownPeriod]]] = dataclasses.field(default_factory=dict)
    refused: dict[str, BillingError] = dataclasses.field(default_factory=dict)
    silent: BillingError | None = None
    asked: list[str] = dataclasses.field(default_factory=list)

    def read(self, customer_ids: Sequence[str]) -> Mapping[str, PeriodsFound]:
        """Return what is written; raise when it is silent."""
        self.asked += customer_ids
        if self.silent is not None:
            raise self.silent
        return {one: self._read(one) for one in customer_ids if not isinstance(self.refused.get(one), Rejected)}

    def _read(self, customer_id: str) -> PeriodsFound:
        found = self.of.get(customer_id, {})
        return PeriodsFound(periods=found, reasons={} if found else {"": "has no subscription"})

    def close(self) -> None:
        """Nothing is open."""

    def put(self, customer_id: str, *periods: KnownPeriod, meter: str = METER) -> None:
        """Have a customer's meter be in some periods."""
        self.of[customer_id] = {**self.of.get(customer_id, {}), meter: periods}


def period(start: datetime, end: datetime, *, ended: bool = False) -> KnownPeriod:
    """Return a period that closes as settings without a grace period of their own say."""
    return KnownPeriod(start=start, end=end, closes_at=closes_at(end, grace=GRACE, ended=ended), ended=ended)


def planner(
    syncing: Syncing,
    source: Periods | None,
    *,
    late_usage: StripeLateUsage = "carry_forward",
    rows: int = ROWS,
    rows_max: int = 16 * ROWS,
) -> Planner:
    """Return a planner by subscription."""
    rules = PlanRules(meter=METER, late_usage=late_usage, grace=GRACE)
    return Planner(PostgresLog(syncing.engine), syncing.clock, rules, source=source, rows=rows, rows_max=rows_max)


def plan(syncing: Syncing, source: Periods | None, late_usage: StripeLateUsage = "carry_forward") -> PlanReport:
    """Plan once, and see that L8 holds afterwards."""
    report = planner(syncing, source, late_usage=late_usage).plan()
    syncing.laws()
    return report


def at(syncing: Syncing, instant: datetime) -> None:
    """Move the clock to an instant."""
    syncing.clock.advance(instant - syncing.clock.now())
