"""Plans what is to be reported: each credit of a linked client's usage goes into exactly one increment (L8).

The increment, its parts and the rows' `planned` are one transaction under the rows' locks, so that no watermark can
pass over a row that commits late. What was planned stays; what cannot be sent as it is gets another generation.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from billing.core.clock import Clock
from billing.core.settings import StripeLateUsage
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.log import Having, Plan, PlanningLog
from billing.sinks.sync.planning import reissuing
from billing.sinks.sync.planning.drafts import Draft, Planned, Unplanned, drafted
from billing.sinks.sync.planning.period_source import PeriodSource
from billing.sinks.sync.planning.periods import KnownPeriod, calendar
from billing.sinks.sync.planning.places import Place, Places
from billing.sinks.sync.planning.refreshing import refresh
from billing.sinks.sync.planning.stamping import moved, stamped

#: Rows of one transaction, which consumers of these clients wait for; and of one client at most (L9).
ROWS: Final = 20_000
ROWS_MAX: Final = 16 * ROWS
#: Increments that one transaction gives their next generation.
REISSUED: Final = 500
#: Bound of one plan; what is left is for the next one.
SECONDS: Final = 240.0
#: Further back than any period that is over can still be open: Stripe's longest grace is 72 hours.
_LATELY: Final = timedelta(hours=72)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlanRules:
    """What the settings say of a plan: the meter of SKUs that have none of their own, and of periods."""

    meter: str
    late_usage: StripeLateUsage = "carry_forward"
    grace: timedelta = timedelta(hours=1)
    #: Periods are UTC months; else they are what the period source says.
    calendar: bool = False

    @property
    def having(self) -> Having:
        """What a client must have so that any of its usage can be planned."""
        if self.calendar:
            return Having.NOTHING
        return Having.OPEN_PERIOD if self.late_usage == "carry_forward" else Having.KNOWN_PERIOD


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PlanReport:
    """What a plan did. `units` are of new increments, `written_off` among them.

    `postponed` increments had no free minute yet. `waiting`: clients whose usage has no open period, by reason.
    `unread`: why the periods of some customers were not read. `busy`: another planner was at work.
    """

    clients: int = 0
    increments: int = 0
    units: int = 0
    written_off: int = 0
    reissued: int = 0
    quarantined: int = 0
    postponed: int = 0
    waiting: Mapping[str, int] = dataclasses.field(default_factory=dict)
    periods_read: int = 0
    unread: str = ""
    busy: bool = False
    complete: bool = True


class Planner:
    """Plans in slices of clients, each one transaction of the log."""

    def __init__(
        self,
        log: PlanningLog,
        clock: Clock,
        rules: PlanRules,
        *,
        source: PeriodSource | None = None,
        rows: int = ROWS,
        rows_max: int = ROWS_MAX,
        held: Mapping[tuple[str, str], str] | None = None,
    ) -> None:
        self._log, self._clock, self._rules, self._source = log, clock, rules, source
        self._rows, self._rows_max = rows, max(rows, rows_max)
        #: (customer, meter) → why its usage waits.
        self._held = held or {}

    def close(self, *, seconds: float = SECONDS) -> PlanReport:
        """Plan what was used in periods that are over and not closed yet, which a plan every few hours is too late for.

        No period is read: such a one is known, or the next plan reads it.
        """
        now = self._clock.now()
        having = Having.CLOSING_PERIOD
        if self._rules.calendar:
            if not any(period.is_closing(now) for period in self._calendar([now - _LATELY], now)):
                return PlanReport()
            having = Having.NOTHING
        return self._plan(PlanReport(), self._clock.monotonic() + seconds, None, having)

    def plan(self, *, seconds: float = SECONDS, client_id: str | None = None) -> PlanReport:
        """Plan all that is unplanned of linked clients, or of one, until `seconds` are used up."""
        deadline = self._clock.monotonic() + seconds
        with self._log.planning(client_id=client_id) as plan:
            if plan is None:
                return PlanReport(busy=True, complete=False)
        report = PlanReport()
        if self._source is not None and not self._rules.calendar:
            refreshed = refresh(self._log, self._source, self._clock, meter=self._rules.meter, client_id=client_id)
            report = dataclasses.replace(report, periods_read=refreshed.read, unread=refreshed.stopped)
        report = self._reissue(report, deadline, client_id)
        if report.complete:
            report = self._plan(report, deadline, client_id, self._rules.having)
        left_out = self._log.count_waiting(having=self._rules.having, now=self._clock.now(), client_id=client_id)
        return dataclasses.replace(report, waiting=dict(Counter(report.waiting) + Counter(left_out)))

    def _reissue(self, report: PlanReport, deadline: float, client_id: str | None) -> PlanReport:
        after = 0
        while True:
            with self._log.planning(client_id=client_id) as plan:
                if plan is None:
                    return dataclasses.replace(report, busy=True, complete=False)
                now = self._clock.now()
                found = plan.to_reissue(after=after, now=now, most=REISSUED)
                changed = self._next_generations(plan, found, now)
                for increment in changed:
                    plan.replace(increment)
            states = Counter(increment.state for increment in changed)
            renewed = sum(new.generation > old.generation for new, old in _pairs(changed, found))
            report = dataclasses.replace(
                report,
                reissued=report.reissued + renewed,
                written_off=report.written_off + states[State.WRITTEN_OFF],
                quarantined=report.quarantined + states[State.QUARANTINED],
            )
            if len(found) < REISSUED:
                return report
            after = found[-1].increment_id
            if self._clock.monotonic() > deadline:
                return dataclasses.replace(report, complete=False)

    def _next_generations(self, plan: Plan, found: Sequence[Increment], now: datetime) -> list[Increment]:
        """Return what changes: next generations, ends by the policy, and reasons of what waits."""
        if not found:
            return []
        customers = plan.customers(sorted({increment.client_id for increment in found}))
        known = {} if self._rules.calendar else plan.periods(sorted(set(customers.values())))
        changed: list[Increment] = []
        moving: list[tuple[Increment, Place, str, datetime]] = []
        for increment in found:
            customer_id = customers.get(increment.client_id)
            first_hour = plan.first_hour(increment.increment_id)
            place: Place | str = "its client has no customer"
            if customer_id is not None:
                place = reissuing.place_of(
                    increment,
                    first_hour=first_hour,
                    known=self._calendar([first_hour, increment.period_start], now)
                    if self._rules.calendar
                    else known.get((customer_id, increment.event_name), ()),
                    late_usage=self._rules.late_usage,
                    now=now,
                )
            if isinstance(place, str) or customer_id is None:
                waits = reissuing.waiting(increment, str(place))
                changed += [] if waits is None else [waits]
            else:
                moving.append((increment, place, customer_id, first_hour))
        return changed + moved(plan, moving, now)

    def _plan(self, report: PlanReport, deadline: float, client_id: str | None, having: Having) -> PlanReport:
        after, rows_max, counted = "", self._rows, ""
        while True:
            with self._log.planning(client_id=client_id) as plan:
                if plan is None:
                    return dataclasses.replace(report, busy=True, complete=False)
                now = self._clock.now()
                rows = plan.unplanned(after=after, rows=rows_max, having=having, now=now)
                if not rows:
                    return report
                whole, cut = _whole(rows, rows_max)
                if not whole and rows_max < self._rows_max:
                    # One client fills the slice: it is read whole, so that it has one increment.
                    rows_max = min(4 * rows_max, self._rows_max)
                    continue
                drafts, waiting = self._drafted(plan, whole or rows, now)
                planned, postponed = stamped(plan, drafts, now)
                plan.write(planned)
            report = _sum(report, planned, postponed, waiting, counted=counted)
            if cut and not whole and planned:
                counted = rows[-1].client_id  # there is more of it
            else:
                # In the order of the database, whose collation may not be Python's.
                after, rows_max, counted = (whole or rows)[-1].client_id, self._rows, ""
            if self._clock.monotonic() > deadline:
                return dataclasses.replace(report, complete=False)

    def _drafted(
        self, plan: Plan, rows: Sequence[Unplanned], now: datetime
    ) -> tuple[Sequence[Draft], frozenset[tuple[str, str]]]:
        rules = self._rules
        known: Mapping[tuple[str, str], Sequence[KnownPeriod]] = {}
        months: Sequence[KnownPeriod] = ()
        if rules.calendar:
            months = self._calendar([row.hour for row in rows], now)
        else:
            known = plan.periods(sorted({row.customer_id for row in rows}))
        places: dict[tuple[str, str], Places] = {}

        def placing(customer_id: str, event_name: str, hour: datetime) -> Place | str:
            key = customer_id, event_name
            if key in self._held:
                return self._held[key]
            if key not in places:
                own = months if rules.calendar else known.get(key, ())
                places[key] = Places(own, late_usage=rules.late_usage, now=now)
            found = places[key].of(hour)
            # A customer may be subscribed to one meter and not to another.
            return f"{found} (meter {event_name})" if isinstance(found, str) else found

        made = drafted(rows, meters=plan.meters(), default=rules.meter, placing=placing)
        return made.drafts, made.waiting

    def _calendar(self, hours: Sequence[datetime], now: datetime) -> list[KnownPeriod]:
        return calendar([*hours, now], grace=self._rules.grace)


def _whole(rows: Sequence[Unplanned], most: int) -> tuple[Sequence[Unplanned], bool]:
    """Return the rows of clients that were read whole, and whether the last one was cut by the bound on rows."""
    if len(rows) < most:
        return rows, False
    last = rows[-1].client_id
    return [row for row in rows if row.client_id != last], True


def _pairs(changed: Sequence[Increment], found: Sequence[Increment]) -> list[tuple[Increment, Increment]]:
    old = {increment.increment_id: increment for increment in found}
    return [(new, old[new.increment_id]) for new in changed]


def _sum(
    report: PlanReport,
    planned: Sequence[Planned],
    postponed: Sequence[Draft],
    waiting: frozenset[tuple[str, str]],
    *,
    counted: str,
) -> PlanReport:
    """Add a slice; a client that was cut by the one before is counted already."""
    return dataclasses.replace(
        report,
        clients=report.clients + len({one.draft.client_id for one in planned} - {counted}),
        increments=report.increments + len(planned),
        units=report.units + sum(one.draft.units for one in planned),
        written_off=report.written_off + sum(one.draft.place.written_off for one in planned),
        postponed=report.postponed + len(postponed),
        waiting=dict(Counter(report.waiting) + Counter(reason for _, reason in waiting)),
    )
