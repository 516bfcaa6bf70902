"""A customer's form. Only what billing needs of Stripe's customer: the other parameters are refused by name."""

from __future__ import annotations

from typing import Any, Final

from billing.sinks.stripe.sandbox.params import EXPAND, Param, Spec
from billing.sinks.stripe.sandbox.records import Customer

CREATE: Final[Spec] = {
    **EXPAND,
    "name": Param(longest=256),
    "email": Param(longest=512),
    "description": Param(longest=5_000),
    "phone": Param(longest=20),
    "metadata": Param(kind="strings", longest=500),
}
_DETAILS: Final = ("name", "email", "description", "phone")


def details(params: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a new customer; an empty text is Stripe's way to say none."""
    kept: dict[str, Any] = {name: params.get(name) or None for name in _DETAILS}
    return {**kept, "metadata": params.get("metadata", {})}


def shape(customer: Customer) -> dict[str, Any]:
    """Return the object that a caller sees."""
    if customer.deleted:
        return {"id": customer.id, "object": "customer", "deleted": True}
    return {
        "id": customer.id,
        "object": "customer",
        "created": customer.created,
        "livemode": False,
        **customer.details,
    }
