"""Asks Stripe for its totals, one call per customer, meter and period, and holds them to what was sent.

PostgreSQL is read before Stripe: what it says was accepted must be there. If there is more than that explains,
PostgreSQL is read again, since an increment may have been sent in between. A Stripe that does not answer a few times in
a row is asked no more: the rest is not compared, with the reason (L10). Each call waits for a turn of the fleet's rate.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from datetime import UTC, timedelta
from typing import Final

from sqlalchemy import ARRAY, RowMapping, Text, bindparam, text

from billing.connections import postgres
from billing.core.errors import BillingError, Rejected, Unreachable
from billing.reconciliation import invoice_queries
from billing.reconciliation.facts import PeriodFacts
from billing.reconciliation.laws import stripe
from billing.reconciliation.reading import snapshot
from billing.reconciliation.report import Discrepancy
from billing.reconciliation.totals import Totals
from billing.sinks.stripe.keys import key_kind
from billing.sinks.stripe.rates import reads_budget
from billing.sinks.sync.calling.budget import await_turn
from billing.sinks.sync.planning.periods import minute_of, period_of
from billing.task.runtime import Runtime

#: How long Stripe's summaries may lag behind its events. Stripe names no number; meters are documented as processed
#: asynchronously.
VISIBLE_WITHIN: Final = timedelta(minutes=10)
#: Stripe takes no event that is older than 35 days, so that a period which ended before that stays as it was found.
OPEN_FOR: Final = timedelta(days=35)
#: Calls in a row without an answer, after which Stripe is asked no more. Fewer are some customer's own error (L10).
UNANSWERED_MAX: Final = 3


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Compared:
    """A period beside Stripe's total of it. `total` is None where there is none: `left_out` says why, or `found`."""

    period: PeriodFacts
    total: int | None = None
    found: tuple[Discrepancy, ...] = ()
    left_out: str = ""


class StripeSide:
    """Stripe's side of the comparison."""

    def __init__(self, runtime: Runtime, totals: Totals | None) -> None:
        self._runtime, self._totals = runtime, totals
        self._books = key_kind(runtime.settings).value
        self._silent: str | None = None
        self._unanswered = 0

    def read(self, client_ids: Sequence[str]) -> list[PeriodFacts]:
        """Return what was sent of some clients, by customer, meter and period."""
        runtime = self._runtime
        now = runtime.clock.now().astimezone(UTC)
        present = period_of(now)
        values = {
            "ids": list(client_ids),
            "fresh": now - VISIBLE_WITHIN,
            "oldest": now - OPEN_FOR,
            "meter": runtime.settings.stripe_meter,
            "books": self._books,
            "open": stripe.OPEN_MAX + 1,
            "now": now,
            "period_start": present.start,
            "period_end": present.end,
        }
        query = text(invoice_queries.PERIODS).bindparams(bindparam("ids", type_=ARRAY(Text)))
        with snapshot(runtime.settings, runtime.engine) as connection:
            return [_facts(row._mapping) for row in connection.execute(query, values)]  # noqa: SLF001 - documented

    def compare(self, period: PeriodFacts) -> Compared:
        """Ask Stripe for a period's total."""
        if not period.is_ours:
            return Compared(period=period, left_out=f"meter {period.event_name} is not billing_stripe_meter")
        if period.books != self._books:
            reason = f"sent with the key of another kind: {period.books}, not {self._books}"
            return Compared(period=period, left_out=reason)
        if self._silent is not None:
            return Compared(period=period, left_out=self._silent)
        start, end = minute_of(period.period_start), minute_of(period.period_end)
        try:
            total = self._gateway().total(period.customer_id, period.event_name, start, end)
        except Rejected as error:
            # One customer that Stripe does not know leaves the others to be asked for (L10).
            return Compared(period=period, found=(stripe.refused(period, str(error)),))
        except BillingError as error:
            self._unanswered += 1
            if not isinstance(error, Unreachable) or self._unanswered == UNANSWERED_MAX:
                self._silent = str(error)
            return Compared(period=period, left_out=str(error))
        self._unanswered = 0
        found = tuple(stripe.differences(period, total))
        if found:
            found = tuple(stripe.differences(self._later(period), total))
        return Compared(period=period, total=total, found=found)

    def close(self) -> None:
        """Close the gateway that was made here."""
        close = getattr(self._totals, "close", None)
        if close is not None:
            close()

    def _later(self, period: PeriodFacts) -> PeriodFacts:
        """Return the period with what may have been sent since as doubtful: the total is older than this reading."""
        for now in self.read([period.client_id]):
            if (now.customer_id, now.event_name, now.period_start, now.books) == (
                period.customer_id,
                period.event_name,
                period.period_start,
                period.books,
            ):
                if (now.known, now.doubtful) == (period.known, period.doubtful):
                    return period
                possible = now.known + now.doubtful - period.known
                return dataclasses.replace(
                    period,
                    doubtful=max(period.doubtful, possible),
                    open_units=None,
                    increments=now.increments or period.increments,
                )
        return period

    def _gateway(self) -> Totals:
        if self._totals is None:
            # Stripe's library is large, and only those who have linked clients need it.
            from billing.sinks.stripe.gateway import Gateway  # noqa: PLC0415

            self._totals = Gateway(self._runtime.settings, turn=self._turn)
        return self._totals

    def _turn(self) -> None:
        """Wait until the fleet's rate lets one more call through."""
        runtime = self._runtime
        with postgres.reaching(runtime.settings):
            await_turn(reads_budget(runtime), runtime.clock, time.sleep)


def _facts(row: RowMapping) -> PeriodFacts:
    units = tuple(row["open_units"] or ())
    open_units = units if len(units) <= stripe.OPEN_MAX else None
    return PeriodFacts(**{**row, "open_units": open_units, "increments": tuple(row["increments"] or ())})
