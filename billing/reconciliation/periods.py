"""The law of Stripe's totals, for a whole reconciliation: every period of a slice of clients goes into its report."""

from __future__ import annotations

from collections.abc import Sequence

from billing.reconciliation.laws import stripe
from billing.reconciliation.report import Law
from billing.reconciliation.stripe_side import Compared, StripeSide
from billing.reconciliation.tally import Tally
from billing.reconciliation.totals import Totals
from billing.task.runtime import Runtime


class Periods:
    """The comparison with Stripe."""

    def __init__(self, runtime: Runtime, tally: Tally, totals: Totals | None) -> None:
        self._tally = tally
        self._side = StripeSide(runtime, totals)

    def compare(self, client_ids: Sequence[str]) -> None:
        """Compare the periods of a slice of clients."""
        periods = self._side.read(client_ids)
        self._tally.compared(Law.STRIPE, customers=len({period.customer_id for period in periods}))
        for period in periods:
            self._count(self._side.compare(period))

    def close(self) -> None:
        """Close the gateway that was made here."""
        self._side.close()

    def _count(self, one: Compared) -> None:
        self._tally.found(one.found)
        if one.left_out:
            self._tally.left_out(Law.STRIPE, one.left_out)
        if one.total is not None:
            self._tally.compared(
                Law.STRIPE,
                periods=1,
                units=min(one.total, one.period.known),
                not_visible_yet=0 if one.found else stripe.not_visible(one.period, one.total),
                doubtful=one.period.doubtful,
            )
