"""Meter events of v2: JSON, instants instead of seconds, a code for each refusal, and values above 0 alone.

Source: Stripe's OpenAPI description, which names the codes; that the rules are else those of v1 is assumed.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any, Final

from billing.sinks.stripe.sandbox import times
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.params import Param, Spec
from billing.sinks.stripe.sandbox.resources import meter_events, meters
from billing.sinks.stripe.sandbox.routing import Call, route

CREATE: Final[Spec] = {
    "event_name": Param(required=True, longest=100),
    "payload": Param(kind="strings", required=True),
    "identifier": Param(longest=100),
    "timestamp": Param(longest=40),
}
_POSITIVE: Final = re.compile(r"0*[1-9][0-9]*")


def create(call: Call) -> dict[str, Any]:
    """`POST /v2/billing/meter_events`."""
    given = dict(call.params)
    if "timestamp" in given:
        given["timestamp"] = times.read(given["timestamp"])
        if given["timestamp"] is None:
            raise Refusal(400, "Invalid timestamp: must be an RFC 3339 instant", code="invalid_timestamp")
    meter = call.store.active_meter(given["event_name"])
    value = None if meter is None else given["payload"].get(meters.value_key(meter))
    if value and not _POSITIVE.fullmatch(value):
        raise Refusal(400, "Payload value must be a positive integer", code="payload_invalid_value")
    event = meter_events.accepted(dataclasses.replace(call, params=given))
    return {
        "object": "v2.billing.meter_event",
        "created": times.written(event.received_at),
        "event_name": event.event_name,
        "identifier": event.identifier,
        "livemode": False,
        "payload": event.payload,
        "timestamp": times.written(event.timestamp),
    }


ROUTES: Final = (route("POST", "/v2/billing/meter_events", CREATE, create),)
