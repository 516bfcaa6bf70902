"""Adjustments of meter events: one event is canceled, by its identifier, within 24 hours of its receipt.

Source: the API reference. It says `pending` first; when it is complete, and what refuses one, is assumed.
"""

from __future__ import annotations

from typing import Any, Final

from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.params import EXPAND, Param, Spec
from billing.sinks.stripe.sandbox.routing import Call, route

CREATE: Final[Spec] = {
    **EXPAND,
    "cancel": Param(kind="object", fields={"identifier": Param(longest=100)}),
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
    if found is None:
        raise _refusal(identifier, "there is no such event", code="resource_missing")
    place, event = found
    if event.received_at <= call.now - WINDOW_SECONDS:
        raise _refusal(identifier, "it was received more than 24 hours ago")
    if event.canceled_at is not None:
        raise _refusal(identifier, "it is canceled already")
    complete_at = call.now + call.knobs.adjustment_seconds
    call.store.events.cancel(place, complete_at)
    return {
        "object": "billing.meter_event_adjustment",
        "cancel": {"identifier": identifier},
        "event_name": event.event_name,
        "livemode": False,
        "status": "complete" if complete_at <= call.now else "pending",
        "type": "cancel",
    }


def _refusal(identifier: str, why: str, *, code: str | None = None) -> Refusal:
    message = f"The event with identifier {identifier} cannot be canceled: {why}."
    return Refusal(400, message, code=code, param="cancel[identifier]")


ROUTES: Final = (route("POST", "/v1/billing/meter_event_adjustments", CREATE, create),)
