"""Meter events: what they take, what is refused, their form.

Sources: the length of identifier and event name, and the payload of texts, are in Stripe's OpenAPI description; the
window of the timestamp is in the API reference; at most 15 digits is in the changelog of 2026-04-22.
"""

from __future__ import annotations

import re
from typing import Any, Final

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.params import EXPAND, Param, Spec
from billing.sinks.stripe.sandbox.records import Event, Meter, new_id
from billing.sinks.stripe.sandbox.resources import meters
from billing.sinks.stripe.sandbox.routing import Call, route

CREATE: Final[Spec] = {
    **EXPAND,
    "event_name": Param(required=True, longest=100),
    "payload": Param(kind="strings", required=True),
    "identifier": Param(longest=100),
    "timestamp": Param(kind="integer"),
}
PAST_DAYS: Final = 35
PAST_SECONDS: Final = PAST_DAYS * 86_400
FUTURE_SECONDS: Final = 300
DIGITS_MAX: Final = 15
_WHOLE: Final = re.compile(r"[+-]?[0-9]+")
_DECIMAL: Final = re.compile(r"[+-]?[0-9]+(\.[0-9]+)?")


def check_timestamp(timestamp: int, now: int) -> None:
    """Refuse what is older than 35 days or more than five minutes ahead. The first sentence is Stripe's own."""
    oldest, newest = now - PAST_SECONDS, now + FUTURE_SECONDS
    if timestamp < oldest:
        message = (
            f"The event timestamp cannot be more than {PAST_DAYS} days in past. "
            f"Expected a timestamp greater than or equal to {oldest}."
        )
        raise Refusal(400, message, param="timestamp", v2_code="timestamp_too_far_in_past")
    if timestamp > newest:
        message = (
            "The event timestamp cannot be more than 5 minutes in the future. "
            f"Expected a timestamp less than or equal to {newest}."
        )
        raise Refusal(400, message, param="timestamp", v2_code="timestamp_in_future")


def check_payload(payload: dict[str, str], meter: Meter, *, decimals: bool) -> None:
    """Refuse a payload without customer, or with a value that the meter cannot aggregate."""
    customer_key, value_key = meters.customer_key(meter), meters.value_key(meter)
    if not payload.get(customer_key):
        raise _payload_refusal(customer_key, "is required: it names the customer", "payload_no_customer_defined")
    if meters.formula(meter) == "count" and value_key not in payload:
        return
    if not payload.get(value_key):
        raise _payload_refusal(value_key, "is required: it is the event's value", "payload_no_value_defined")
    value = payload[value_key]
    if not (_DECIMAL if decimals else _WHOLE).fullmatch(value):
        raise _payload_refusal(
            value_key, "must be a number" if decimals else "must be a whole number", "payload_invalid_value"
        )
    if len(re.sub(r"\D", "", value).strip("0" if "." in value else "").lstrip("0")) > DIGITS_MAX:
        rule = f"must have at most {DIGITS_MAX} significant digits"
        raise _payload_refusal(value_key, rule, "payload_invalid_value")


def shape(event: Event) -> dict[str, Any]:
    """Return the object that a caller sees."""
    return {
        "object": "billing.meter_event",
        "created": event.received_at,
        "event_name": event.event_name,
        "identifier": event.identifier,
        "livemode": False,
        "payload": event.payload,
        "timestamp": event.timestamp,
    }


def create(call: Call) -> dict[str, Any]:
    """`POST /v1/billing/meter_events`."""
    return shape(accepted(call))


def accepted(call: Call) -> Event:
    """Check an event, and keep it: with the code of the later error if it never counts."""
    params, knobs, now = call.params, call.knobs, call.now
    identifier = params.get("identifier") or new_id("evt")
    meter = call.store.active_meter(params["event_name"])

    def refuse_duplicate() -> None:
        since = now - knobs.identifier_window_seconds
        one_meter = meter.id if meter is not None and knobs.identifier_scope == "meter" else None
        one_api = call.api if knobs.v2_identifiers == "own" else None
        canceled_by = now if knobs.canceled_identifier == "free" else None
        used = call.store.events.identifier_used
        if used(identifier, since=since, meter=one_meter, api=one_api, canceled_by=canceled_by):
            raise errors.duplicate_event(identifier, saved=knobs.save_refusals)

    if knobs.duplicate_first:
        refuse_duplicate()
    timestamp = params.get("timestamp", now)
    check_timestamp(timestamp, now)
    payload = params["payload"]
    if meter is not None:
        check_payload(payload, meter, decimals=knobs.decimals)
    customer_id = payload.get("stripe_customer_id" if meter is None else meters.customer_key(meter), "")
    dropped = _without_meter(call) if meter is None else _dropped(call, customer_id)
    refuse_duplicate()
    event = Event(
        identifier=identifier,
        event_name=params["event_name"],
        meter="" if meter is None else meter.id,
        customer=customer_id,
        value="0" if meter is None else payload.get(meters.value_key(meter), "1"),
        timestamp=timestamp,
        received_at=now,
        dropped=dropped,
        key=call.key,
        api=call.api,
        payload=payload,
    )
    call.store.events.add(event)
    return event


def _without_meter(call: Call) -> str:
    """Return the code of the later error, or refuse at once what no active meter takes."""
    name, knobs = call.params["event_name"], call.knobs
    archived = any(meter.event_name == name for meter in call.store.meters())
    if knobs.no_meter == "refuse":
        raise errors.no_active_meter(name, archived=archived, saved=knobs.save_refusals)
    return "no_meter"


def _dropped(call: Call, customer_id: str) -> str | None:
    """Return the code of the error that Stripe reports later, None when the event counts."""
    if call.drop_code is not None:
        return call.drop_code
    found = call.store.customer(customer_id)
    if found is not None and not found.deleted:
        return None
    knob = call.knobs.unknown_customer if found is None else call.knobs.deleted_customer
    if knob == "refuse":
        refusal = errors.no_such("customer", customer_id, param="payload", status=400)
        refusal.executed = call.knobs.save_refusals
        raise refusal
    return "meter_event_customer_not_found"


def _payload_refusal(key: str, rule: str, v2_code: str) -> Refusal:
    return Refusal(400, f"Invalid value for payload[{key}]: {rule}", param=f"payload[{key}]", v2_code=v2_code)


ROUTES: Final = (route("POST", "/v1/billing/meter_events", CREATE, create),)
