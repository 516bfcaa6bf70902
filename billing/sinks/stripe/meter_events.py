"""Meter events: an increment as Stripe counts it, read back from the summary of its own minute, or taken back."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from billing.core.errors import InvalidValue, Rejected
from billing.sinks.sink import Payload, Reply
from billing.sinks.stripe.meters import CUSTOMER_KEY, VALUE_KEY, Meters
from billing.sinks.stripe.session import PAGE, Session

_MINUTE_SECONDS: Final = 60
_MINUTE: Final = timedelta(minutes=1)


def send(session: Session, payload: Payload, *, idempotency_key: str) -> Reply:
    """Send one meter event in exactly one request, so that each is on record as an attempt. Never raises."""
    return session.send(
        lambda: session.client.v1.billing.meter_events.create(
            {
                "event_name": payload.event_name,
                "identifier": payload.identifier,
                "timestamp": int(payload.event_at.timestamp()),
                "payload": {CUSTOMER_KEY: payload.customer_id, VALUE_KEY: str(payload.units)},
            },
            {"idempotency_key": idempotency_key, "max_network_retries": 0},
        ),
        said=lambda made: made.identifier,
        wanted=payload.identifier,
        duplicate=True,
    )


def withdraw(session: Session, payload: Payload, *, idempotency_key: str) -> Reply:
    """Cancel one meter event by its identifier; Stripe does so within 24 hours of its receipt, and not at once."""
    return session.send(
        lambda: session.client.v1.billing.meter_event_adjustments.create(
            {"event_name": payload.event_name, "type": "cancel", "cancel": {"identifier": payload.identifier}},
            {"idempotency_key": idempotency_key, "max_network_retries": 0},
        ),
        said=lambda made: made.cancel.identifier if made.cancel is not None else None,
        wanted=payload.identifier,
    )


def shown(session: Session, meters: Meters, payload: Payload) -> int:
    """Return the units that the summary of an event's own minute shows."""
    minute = payload.event_at.replace(second=0, microsecond=0)
    return total(session, meters, payload.customer_id, payload.event_name, minute, minute + _MINUTE)


def total(session: Session, meters: Meters, customer_id: str, event_name: str, start: datetime, end: datetime) -> int:
    """Return the units that Stripe's summaries show for a customer in [start, end), whole minutes in UTC.

    Summaries are eventually consistent, with no bound that Stripe promises. Raises `Unreachable`, `Fatal`, and
    `Rejected` for what concerns this customer alone.
    """
    first, last = int(start.timestamp()), int(end.timestamp())
    if first % _MINUTE_SECONDS or last % _MINUTE_SECONDS or first >= last:
        raise InvalidValue("start, end", (start.isoformat(), end.isoformat()), "must be whole minutes, in order")
    meter_id = meters.known(event_name).meter_id
    with session.reaching():
        page = session.client.v1.billing.meters.event_summaries.list(
            meter_id,
            {"customer": customer_id, "start_time": first, "end_time": last, "limit": PAGE},
            session.reads(),
        )
        return sum(_whole(summary.aggregated_value) for summary in page.auto_paging_iter())


def _whole(value: float) -> int:
    """Return a summary's value, which Stripe writes as a float: whole units stay exact below 2^53."""
    if value != int(value):
        # Of one customer: the others are still to be asked for (L10).
        raise Rejected(f"Stripe: {value!r}: must be whole: somebody else sends events to this meter")
    return int(value)
