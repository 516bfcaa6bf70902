"""A meter's parameters and form."""

from __future__ import annotations

from typing import Any, Final

from billing.sinks.stripe.sandbox.params import EXPAND, PAGE, Param, Spec
from billing.sinks.stripe.sandbox.records import Meter

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
