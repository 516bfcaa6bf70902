"""Adjustments of meter events: one event is canceled, by its identifier, within 24 hours of its receipt.

Source: the API reference. It says `pending` first; when it is complete, and what refuses one, is assumed.
"""

from __future__ import annotations

from typing import Any, Final

from billing.sinks.stripe.sandbox import times
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.params import EXPAND, Param, Spec
from billing.sinks.stripe.sandbox.records import Event, new_id
from billing.sinks.stripe.sandbox.routing import Call, route

CREATE: Final[Spec] = {
    **EXPAND,
    "cancel": Param(kind="object", fields={"identifier": Param(longest=100)}),
    "event_name": Param(required=True, longest=100),
    "type": Param(required=True, choices=("cancel",)),
}
CREATE_V2: Final[Spec] = {
    "cancel": Param(kind="object", required=True, fields={"identifier": Param(required=True, longest=100)}),
    "event_name": Param(required=True, longest=100),
    "type": Param(required=True, choices=("cancel",)),
}
WINDOW_SECONDS: Final = 86_400


def create(call: Call) -> dict[str, Any]:
    """`POST /v1/billing/meter_event_adjustments`. The event counts no more once it is complete."""
    identifier = call.params.get("cancel", {}).get("identifier")
    if not identifier:
        message = "Missing required param: cancel[identifier]."
        raise Refusal(400, message, code="parameter_missing", param="cancel[identifier]")
    found = call.store.events.latest(identifier, call.params["event_name"])
    complete_at = call.now + call.knobs.adjustment_seconds
    if (why := _why_not(found, call.now)) is None and found is not None:
        call.store.events.cancel(found[0], complete_at)
    elif call.knobs.wrong_adjustment == "refuse":
        message = f"The event with identifier {identifier} cannot be canceled: {why}."
        code = "resource_missing" if found is None else None
        raise Refusal(400, message, code=code, param="cancel[identifier]")
    return {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": identifier},
        "event_name": call.params["event_name"],
        "livemode": False,
        "status": "complete" if complete_at <= call.now else "pending",
        "type": "cancel",
    }


def create_v2(call: Call) -> dict[str, Any]:
    """`POST /v2/billing/meter_event_adjustments`."""
    more = {"object": "v2.billing.meter_event_adjustment", "id": new_id("mea_test"), "created": times.written(call.now)}
    return {**create(call), **more}


def _why_not(found: tuple[int, Event] | None, now: int) -> str | None:
    """Say why an event cannot be canceled, None if it can."""
    if found is None:
        return "there is no such event"
    if found[1].received_at <= now - WINDOW_SECONDS:
        return "it was received more than 24 hours ago"
    return None if found[1].canceled_at is None else "it is canceled already"


ROUTES: Final = (
    route("POST", "/v1/billing/meter_event_adjustments", CREATE, create),
    route("POST", "/v2/billing/meter_event_adjustments", CREATE_V2, create_v2),
)
