"""What a test holds in its hand: clients, prices, time, and what was charged, held, refused and published."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta

from billing.catalog.price_book import Price
from billing.core.clock import to_milliseconds
from billing.core.credits import check_amount
from billing.core.errors import BillingError, InvalidValue, UnknownClient
from billing.core.identifiers import check_client_id, check_sku
from billing.core.settings import Settings
from billing.credits.entries import AlertEntry
from billing.credits.granting import AdjustOutcome, TermsOutcome, VoidOutcome
from billing.credits.terms import PRIORITY, ClientState, ClientTerms, GrantTerms
from billing.credits.values import Balance, GrantOutcome, StoredHold
from billing.events.usage_event import UsageEvent
from billing.task.attachment import Attachment, bill_instead
from billing.testing.clock import TestClock
from billing.testing.runtime import TwinLifecycle, TwinRuntime

#: More alerts than a test raises.
_ALERTS_MAX = 10_000


class BillingTwin:
    """Billing in memory, in place of every app's that billing is set up on, and of `billing.reserve` without an app."""

    def __init__(self, settings: Settings | None = None) -> None:
        self.clock = TestClock()
        self.runtime = TwinRuntime(settings or Settings(), self.clock)
        self._attachment = Attachment(self.runtime, TwinLifecycle)
        self._ids = itertools.count(1)

    @contextmanager
    def billing(self) -> Iterator[None]:
        """Bill by the twin for a while."""
        with bill_instead(self._attachment):
            yield

    # What there is.

    def price(self, sku: str, credits_per_unit: int, *, unit: str = "unit") -> None:
        """Set what one unit of a SKU costs from now on."""
        check_sku(sku)
        check_amount("credits_per_unit", credits_per_unit, minimum=0)
        price = Price(sku=sku, version=0, credits_per_unit=credits_per_unit, unit=unit, effective_at=self.clock.now())
        self.runtime.price_list.add(price)

    def client(self, client_id: str, credits: int = 0, *, overdraft_limit: int = 0) -> None:
        """Add a client, with a grant if it is to have credits."""
        check_client_id(client_id)
        if client_id in self.runtime.clients:
            raise InvalidValue("client_id", client_id, "was added before")
        self.runtime.twin.open_client(client_id)
        self.runtime.clients.add(client_id)
        if overdraft_limit:
            self.terms(client_id, overdraft_limit=overdraft_limit)
        if credits:
            self.grant(client_id, credits)

    def grant(
        self,
        client_id: str,
        credits: int,
        *,
        expires_at: datetime | None = None,
        priority: int = PRIORITY,
        skus: Sequence[str] = (),
    ) -> int:
        """Grant credits and return the grant's id. Raises what `billing grant` would refuse."""
        balance = self.runtime.twin.balance(self._known(client_id))
        if balance is not None and balance.terms.state is ClientState.CLOSED:
            # A bucket takes what the ledger has: it is the ledger that refuses.
            raise InvalidValue("client_id", client_id, "is closed: it is granted nothing (see: billing client resume)")
        grant_id = next(self._ids)
        expires_ms = 0 if expires_at is None else to_milliseconds(expires_at)
        terms = GrantTerms(priority=priority, expires_ms=expires_ms, skus=tuple(skus))
        outcome = self.runtime.twin.grant(client_id, grant_id, credits, terms)
        if outcome is not GrantOutcome.GRANTED:
            raise BillingError(f"grant: client {client_id!r}: {outcome.value.lower()}")
        return grant_id

    def void(self, client_id: str, grant_id: int) -> None:
        """Take back what a grant has left."""
        outcome = self.runtime.twin.void(self._known(client_id), grant_id)
        if outcome not in (VoidOutcome.VOIDED, VoidOutcome.ALREADY):
            raise BillingError(f"void: client {client_id!r}: {outcome.value.lower()}")

    def adjust(self, client_id: str, credits: int) -> None:
        """Take credits away; what is missing is owed."""
        outcome = self.runtime.twin.adjust(self._known(client_id), next(self._ids), credits).outcome
        if outcome is not AdjustOutcome.ADJUSTED:
            raise BillingError(f"adjust: client {client_id!r}: {outcome.value.lower()}")

    def terms(self, client_id: str, *, state: ClientState = ClientState.ACTIVE, overdraft_limit: int = 0) -> None:
        """Give a client its state and its overdraft limit."""
        terms = ClientTerms(state=state, overdraft_limit=overdraft_limit)
        outcome = self.runtime.twin.set_terms(self._known(client_id), terms)
        if outcome is not TermsOutcome.SET:
            raise BillingError(f"terms: client {client_id!r}: {outcome.value.lower()}")

    def ends_in(self, *, seconds: float = 0, days: float = 0) -> datetime:
        """Return the instant that is so far away, for a grant's `expires_at`."""
        return self.clock.now() + timedelta(days=days, seconds=seconds)

    def advance(self, *, seconds: float = 0, days: float = 0) -> None:
        """Let time pass: grants end, leases run out, but for those of runs that go on, which are renewed."""
        self.clock.advance(timedelta(days=days, seconds=seconds))
        self._attachment.lifecycle.renewal.renew()

    # What has become of it.

    def balance(self, client_id: str) -> Balance:
        """Return a client's bucket: `available`, `held`, `spent`, `owed`, and each grant."""
        balance = self.runtime.twin.balance(self._known(client_id))
        if balance is None:
            raise UnknownClient(client_id)
        return balance

    def holds(self, client_id: str) -> list[StoredHold]:
        """Return the runs that hold credits of a client."""
        return self.runtime.twin.held(self._known(client_id))

    def events(self, client_id: str | None = None) -> list[UsageEvent]:
        """Return the usage events that would have been published, in their order, of a client or of all."""
        return [event for event in self.runtime.published.events if client_id in (None, event.client_id)]

    def charged(self, client_id: str) -> int:
        """Return the credits that a client was charged."""
        return sum(line.credits for event in self.events(self._known(client_id)) for line in event.lines)

    def alerts(self, client_id: str) -> list[AlertEntry]:
        """Return the alerts of a client: of its low balance, and, with `owed`, of its debt."""
        found = self.runtime.twin.alerts(count=_ALERTS_MAX)
        return [alert for alert in found if alert.client_id == self._known(client_id)]

    def _known(self, client_id: str) -> str:
        if client_id not in self.runtime.clients:
            raise UnknownClient(client_id)
        return client_id
