"""Meters: what is counted, of whom, and how it is aggregated."""

from __future__ import annotations

from typing import Any, Final

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.pages import page
from billing.sinks.stripe.sandbox.params import EXPAND, PAGE, Param, Spec
from billing.sinks.stripe.sandbox.records import Meter, new_id
from billing.sinks.stripe.sandbox.routing import Call, route

CREATE: Final[Spec] = {
    **EXPAND,
    "display_name": Param(required=True, longest=250),
    "event_name": Param(required=True, longest=100),
    "default_aggregation": Param(
        kind="object", required=True, fields={"formula": Param(required=True, choices=("sum", "count", "last"))}
    ),
    "event_time_window": Param(choices=("hour", "day")),
    "customer_mapping": Param(
        kind="object",
        fields={
            "event_payload_key": Param(required=True, longest=100),
            "type": Param(required=True, choices=("by_id",)),
        },
    ),
    "value_settings": Param(kind="object", fields={"event_payload_key": Param(required=True, longest=100)}),
}
LIST: Final[Spec] = {**PAGE, "status": Param(choices=("active", "inactive"))}


def details(params: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a new meter, with Stripe's defaults."""
    return {
        "display_name": params["display_name"],
        "default_aggregation": params["default_aggregation"],
        "event_time_window": params.get("event_time_window"),
        "customer_mapping": params.get(
            "customer_mapping", {"event_payload_key": "stripe_customer_id", "type": "by_id"}
        ),
        "value_settings": params.get("value_settings", {"event_payload_key": "value"}),
    }


def shape(meter: Meter) -> dict[str, Any]:
    """Return the object that a caller sees."""
    return {
        "id": meter.id,
        "object": "billing.meter",
        "created": meter.created,
        "updated": meter.updated,
        "livemode": False,
        "event_name": meter.event_name,
        "status": meter.status,
        "status_transitions": {"deactivated_at": meter.deactivated_at},
        **meter.details,
    }


def customer_key(meter: Meter) -> str:
    """Name the payload's key that holds the customer."""
    return str(meter.details["customer_mapping"]["event_payload_key"])


def value_key(meter: Meter) -> str:
    """Name the payload's key that holds the value."""
    return str(meter.details["value_settings"]["event_payload_key"])


def formula(meter: Meter) -> str:
    """Name how events are aggregated: sum, count or last."""
    return str(meter.details["default_aggregation"]["formula"])


def create(call: Call) -> dict[str, Any]:
    """`POST /v1/billing/meters`."""
    name = call.params["event_name"]
    if call.knobs.event_name_taken == "refuse" and call.store.active_meter(name) is not None:
        raise Refusal(400, f'An active meter already exists for event name "{name}"', param="event_name")
    made = Meter(
        id=new_id("mtr_test"), event_name=name, created=call.now, updated=call.now, details=details(call.params)
    )
    call.store.add_meter(made)
    return shape(made)


def retrieve(call: Call) -> dict[str, Any]:
    """`GET /v1/billing/meters/{id}`."""
    return shape(found(call))


def list_all(call: Call) -> dict[str, Any]:
    """`GET /v1/billing/meters`."""
    status = call.params.get("status")
    wanted = [shape(meter) for meter in call.store.meters() if status in {None, meter.status}]
    return page(wanted, call.params, url="/v1/billing/meters")


def deactivate(call: Call) -> dict[str, Any]:
    """`POST /v1/billing/meters/{id}/deactivate`."""
    found(call)
    call.store.set_meter_status(call.id, "inactive", call.now)
    return retrieve(call)


def reactivate(call: Call) -> dict[str, Any]:
    """`POST /v1/billing/meters/{id}/reactivate`."""
    found(call)
    call.store.set_meter_status(call.id, "active", call.now)
    return retrieve(call)


def found(call: Call) -> Meter:
    """Return the meter that the call's path names."""
    meter = call.store.meter(call.id)
    if meter is None:
        raise errors.no_such("billing meter", call.id)
    return meter


ROUTES: Final = (
    route("POST", "/v1/billing/meters", CREATE, create),
    route("GET", "/v1/billing/meters", LIST, list_all),
    route("GET", "/v1/billing/meters/{id}", EXPAND, retrieve),
    route("POST", "/v1/billing/meters/{id}/deactivate", EXPAND, deactivate),
    route("POST", "/v1/billing/meters/{id}/reactivate", EXPAND, reactivate),
)
