"""Compares Stripe's totals with what was sent, one call per customer and period.

PostgreSQL is read before Stripe: what it says was accepted must be there. If there is more than that explains,
PostgreSQL is read again, since an increment may have been sent in between. A Stripe that does not answer a few times in
a row is asked no more: the rest is reported as not compared (L10).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Protocol

from sqlalchemy import ARRAY, RowMapping, Text, bindparam, text

from billing.core.errors import BillingError, Rejected, Unreachable
from billing.reconciliation import invoice_queries
from billing.reconciliation.facts import PeriodFacts
from billing.reconciliation.laws import stripe
from billing.reconciliation.reading import snapshot
from billing.reconciliation.report import Law
from billing.reconciliation.tally import Tally
from billing.sinks.stripe.keys import key_kind
from billing.sinks.sync.periods import minute_of, period_of
from billing.task.runtime import Runtime

#: How long Stripe's summaries may lag behind its events. Stripe names no number; meters are documented as processed
#: asynchronously.
VISIBLE_WITHIN: Final = timedelta(minutes=10)
#: Stripe takes no event that is older than 35 days, so that a period which ended before that stays as it was found.
OPEN_FOR: Final = timedelta(days=35)
#: Calls in a row without an answer, after which Stripe is asked no more. Fewer are some customer's own error (L10).
UNANSWERED_MAX: Final = 3


class Totals(Protocol):
    """Where a customer's total comes from: Stripe's gateway."""

    def total(self, customer_id: str, event_name: str, start: datetime, end: datetime) -> int:
        """Return the units that Stripe shows for a customer from one minute up to another."""
        ...


class Periods:
    """The comparison with Stripe."""

    def __init__(self, runtime: Runtime, tally: Tally, totals: Totals | None) -> None:
        self._runtime, self._tally, self._totals = runtime, tally, totals
        self._books = key_kind(runtime.settings).value
        self._silent: str | None = None
        self._unanswered = 0

    def compare(self, client_ids: Sequence[str]) -> None:
        """Compare the periods of a slice of clients."""
        periods = self._read(client_ids)
        self._tally.compared(Law.STRIPE, customers=len({period.customer_id for period in periods}))
        for period in periods:
            if not period.is_ours:
                self._tally.left_out(Law.STRIPE, f"meter {period.event_name} is not billing_stripe_meter")
            elif period.books != self._books:
                reason = f"sent with the key of another kind: {period.books}, not {self._books}"
                self._tally.left_out(Law.STRIPE, reason)
            else:
                self._compare(period)

    def close(self) -> None:
        """Close the gateway that was made here."""
        close = getattr(self._totals, "close", None)
        if close is not None:
            close()

    def _compare(self, period: PeriodFacts) -> None:
        if self._silent is None:
            try:
                total = self._gateway().total(
                    period.customer_id, period.event_name, minute_of(period.period_start), minute_of(period.period_end)
                )
            except Rejected as error:
                # One customer that Stripe does not know leaves the others to be asked for (L10).
                self._tally.found([stripe.refused(period, str(error))])
                return
            except BillingError as error:
                self._unanswered += 1
                if not isinstance(error, Unreachable) or self._unanswered == UNANSWERED_MAX:
                    self._silent = str(error)
                self._tally.left_out(Law.STRIPE, str(error))
                return
        if self._silent is not None:
            self._tally.left_out(Law.STRIPE, self._silent)
            return
        self._unanswered = 0
        found = list(stripe.differences(period, total))
        if found:
            found = list(stripe.differences(self._later(period), total))
        self._tally.found(found)
        units = min(total, period.known)
        self._tally.compared(
            Law.STRIPE,
            periods=1,
            units=units,
            not_visible_yet=0 if found else stripe.not_visible(period, total),
            doubtful=period.doubtful,
        )

    def _later(self, period: PeriodFacts) -> PeriodFacts:
        """Return the period with what may have been sent since as doubtful: the total is older than this reading."""
        for now in self._read([period.client_id]):
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

    def _read(self, client_ids: Sequence[str]) -> list[PeriodFacts]:
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

    def _gateway(self) -> Totals:
        if self._totals is None:
            # Stripe's library is large, and only those who have linked clients need it.
            from billing.sinks.stripe.gateway import Gateway  # noqa: PLC0415

            self._totals = Gateway(self._runtime.settings)
        return self._totals


def _facts(row: RowMapping) -> PeriodFacts:
    units = tuple(row["open_units"] or ())
    open_units = units if len(units) <= stripe.OPEN_MAX else None
    return PeriodFacts(**{**row, "open_units": open_units, "increments": tuple(row["increments"] or ())})
