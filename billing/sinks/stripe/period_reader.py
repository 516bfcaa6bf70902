"""Reads billing periods from Stripe: one call for a customer, another where an invoice or the customer must be seen.

One customer's error keeps no other waiting (L10); when nobody answers, reading ends at once.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from billing.core.errors import Rejected, Unreachable
from billing.core.settings import Settings
from billing.sinks.stripe import customers, subscriptions
from billing.sinks.stripe.meters import Meters
from billing.sinks.stripe.session import PAGE, Session
from billing.sinks.sync.planning.period_source import PeriodsFound

if TYPE_CHECKING:
    from stripe import HTTPClient

#: Subscriptions of one customer that are looked at, the newest ones (L9).
SUBSCRIPTIONS_MAX: Final = 300
#: Customers in a row without an answer, after which nobody is taken to listen.
UNANSWERED_MAX: Final = 5


class StripePeriods:
    """Billing periods as Stripe has them: a `PeriodSource`. `grace` is the account's, where no invoice says it."""

    def __init__(
        self,
        settings: Settings,
        *,
        grace: timedelta,
        turn: Callable[[], None] = lambda: None,
        http_client: HTTPClient | None = None,
    ) -> None:
        self._session = Session(settings, turn=turn, http_client=http_client)
        self._meters, self._grace = Meters(self._session), grace

    def read(self, customer_ids: Sequence[str]) -> Mapping[str, PeriodsFound]:
        """Return what is known of some customers. Raises `Fatal`, and `Unreachable` when nobody answers."""
        found: dict[str, PeriodsFound] = {}
        if not customer_ids:
            return found
        event_names = self._meters.event_names()
        unanswered: list[Unreachable] = []
        for customer_id in customer_ids:
            try:
                found[customer_id] = self._read(customer_id, event_names)
            except Rejected as error:
                found[customer_id] = PeriodsFound(periods={}, reasons={"": str(error)})
            except Unreachable as error:
                unanswered.append(error)
                if len(unanswered) == UNANSWERED_MAX:
                    break
                continue
            unanswered.clear()
        if unanswered and not found:
            raise unanswered[-1]
        return found

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def _read(self, customer_id: str, event_names: Mapping[str, str]) -> PeriodsFound:
        known = of_customer(self._session, customer_id)
        # One customer's answer that is not Stripe's is that customer's problem alone (L10).
        with self._session.reaching(calls=False):
            invoices = {one["id"]: invoice for one in known if (invoice := self._invoice(one)) is not None}
            found = subscriptions.periods(known, invoices, event_names, grace=self._grace)
        if any(not period.ended for group in found.periods.values() for period in group):
            return found
        # Deleted, or nothing was ever sold to it: two things that want another mending.
        reason = customers.why_not(self._session, customer_id) or "has no subscription that bills a meter"
        return PeriodsFound(periods=found.periods, reasons={"": f"{customer_id} {reason}", **found.reasons})

    def _invoice(self, subscription: Mapping[str, Any]) -> Mapping[str, Any] | None:
        """Return the latest invoice of a subscription; one that came unexpanded is read."""
        latest: Any = subscription.get("latest_invoice")
        if not isinstance(latest, str):
            return latest  # type: ignore[no-any-return]
        with self._session.reaching():
            return self._session.client.v1.invoices.retrieve(latest, None, self._session.reads()).to_dict()


def of_customer(session: Session, customer_id: str) -> list[Mapping[str, Any]]:
    """Return the subscriptions of a customer, those that are over as well, the newest first, as plain values."""
    with session.reaching():
        page = session.client.v1.subscriptions.list(
            {"customer": customer_id, "status": "all", "limit": PAGE, "expand": ["data.latest_invoice"]},
            session.reads(),
        )
        return [one.to_dict() for one in itertools.islice(page.auto_paging_iter(), SUBSCRIPTIONS_MAX)]
