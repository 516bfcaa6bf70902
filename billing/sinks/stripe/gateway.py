"""Stripe as a sink of increments: meter events, and invoice items for what came too late for its own invoice.

A gateway belongs to one thread and one process, as its session does. Its parts are files of their own: the session
(the only one that imports `stripe`), meters, meter events, invoice items, error reports.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Self

from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.sinks.sink import Answer, ErrorReport, Kind, Payload, Reply
from billing.sinks.stripe import customers, error_reports, invoice_items, meter_events
from billing.sinks.stripe.keys import KeyKind
from billing.sinks.stripe.meters import Meter, Meters
from billing.sinks.stripe.session import RETRIES, STAND_IN_KEY, TIMEOUTS_SECONDS, Session

if TYPE_CHECKING:
    from stripe import HTTPClient

__all__ = ["STAND_IN_KEY", "Gateway", "Meter"]


class Gateway:
    """A `MeterSink` on Stripe, or on the stand-in. A context manager; closing it closes its connections."""

    def __init__(
        self,
        settings: Settings,
        *,
        timeouts_seconds: tuple[float, float] = TIMEOUTS_SECONDS,
        retries: int = RETRIES,
        turn: Callable[[], None] = lambda: None,
        http_client: HTTPClient | None = None,
    ) -> None:
        self.session = Session(
            settings, timeouts_seconds=timeouts_seconds, retries=retries, turn=turn, http_client=http_client
        )
        self.kind, self.where, self.event_name = self.session.kind, self.session.where, settings.stripe_meter
        self.meters = Meters(self.session)

    def check(self, event_name: str) -> None:
        """Raise `Fatal` unless the meter is there and counts as increments need it: active, raw, sum, our keys."""
        self.meters.known(event_name)

    def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Send one increment once. An invoice item goes under the key of the increment, whatever the attempt."""
        if payload.kind is Kind.INVOICE_ITEM:
            return invoice_items.send(self.session, self.meters, payload)
        return meter_events.send(self.session, payload, idempotency_key=idempotency_key)

    def shown(self, payload: Payload) -> int:
        """Return the units of the event's own minute, or of the item that carries the identifier."""
        if payload.kind is Kind.INVOICE_ITEM:
            return invoice_items.shown(self.session, payload)
        return meter_events.shown(self.session, self.meters, payload)

    def total(self, customer_id: str, event_name: str, start: datetime, end: datetime) -> int:
        """Return the units that summaries show for a customer in [start, end), whole minutes in UTC."""
        return meter_events.total(self.session, self.meters, customer_id, event_name, start, end)

    def withdraw(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Cancel a meter event. An invoice item is not withdrawn: it is never counted twice."""
        if payload.kind is Kind.INVOICE_ITEM:
            return Reply(answer=Answer.REFUSED, reason="an invoice item is not withdrawn: remove it at Stripe")
        return meter_events.withdraw(self.session, payload, idempotency_key=idempotency_key)

    def error_reports(self, since: datetime) -> Iterator[ErrorReport]:
        """Yield what Stripe reports of what it took and did not count, the oldest first."""
        yield from error_reports.read(self.session, self.meters, since)

    def meter(self, event_name: str) -> Meter | None:
        """Return the active meter of an event name, or None. Raises `Fatal` if it would count wrongly."""
        return self.meters.find(event_name)

    def setup(self) -> Meter:
        """Return the meter of the settings, made if there was none."""
        return self.meter(self.event_name) or self.meters.make(self.event_name)

    def create_customer(self, client_id: str) -> str:
        """Make a customer for a client, for demos and tests; return its id. Refuses a live key."""
        if self.kind is KeyKind.LIVE:
            raise InvalidValue("billing_stripe_api_key", "…_live_…", "must not be live where customers are made up")
        return customers.make(self.session, client_id, since=datetime.now(UTC))

    def close(self) -> None:
        """Close the connections."""
        self.session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
