"""Customers. Only what billing needs of Stripe's: the other parameters are refused by name."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.metadata import updated
from billing.sinks.stripe.sandbox.pages import page
from billing.sinks.stripe.sandbox.params import EXPAND, PAGE, Param, Spec, within
from billing.sinks.stripe.sandbox.records import Customer, new_id
from billing.sinks.stripe.sandbox.routing import Call, route

if TYPE_CHECKING:
    from billing.sinks.stripe.sandbox.store import Store

CREATE: Final[Spec] = {
    **EXPAND,
    "name": Param(longest=256),
    "email": Param(longest=512),
    "description": Param(longest=5_000),
    "phone": Param(longest=20),
    "metadata": Param(kind="strings", longest=500),
}
LIST: Final[Spec] = {**PAGE, "email": Param(longest=512), "created": Param(kind="range")}
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


def create(call: Call) -> dict[str, Any]:
    """`POST /v1/customers`."""
    made = Customer(id=new_id("cus"), created=call.now, details=details(call.params))
    call.store.add_customer(made)
    return shape(made)


def retrieve(call: Call) -> dict[str, Any]:
    """`GET /v1/customers/{id}`."""
    return shape(_found(call))


def update(call: Call) -> dict[str, Any]:
    """`POST /v1/customers/{id}`. Metadata is merged; an empty text removes a key."""
    found = _found(call)
    if found.deleted:
        raise errors.no_such("customer", call.id)
    changed = dataclasses.replace(found, details=updated(found.details, call.params, _DETAILS))
    call.store.change_customer(changed)
    return shape(changed)


def delete(call: Call) -> dict[str, Any]:
    """`DELETE /v1/customers/{id}`. Its subscriptions end at once, without a last invoice, as at Stripe."""
    found = _found(call)
    call.store.change_customer(dataclasses.replace(found, deleted=True))
    call.state.progress.end_all(found.id, call.now)
    return retrieve(call)


def list_all(call: Call) -> dict[str, Any]:
    """`GET /v1/customers`, newest first, without those that were deleted."""
    found = call.store.customers(call.params.get("email"))
    wanted = [shape(one) for one in found if within(one.created, call.params.get("created"))]
    return page(wanted, call.params, url="/v1/customers")


def existing(store: Store, customer_id: str) -> Customer:
    """Return a customer that a parameter names, unless there is none, or it was deleted."""
    found = store.customer(customer_id)
    if found is None or found.deleted:
        raise errors.no_such("customer", customer_id, param="customer", status=400)
    return found


def _found(call: Call) -> Customer:
    found = call.store.customer(call.id)
    if found is None:
        raise errors.no_such("customer", call.id)
    return found


ROUTES: Final = (
    route("POST", "/v1/customers", CREATE, create),
    route("GET", "/v1/customers", LIST, list_all),
    route("GET", "/v1/customers/{id}", EXPAND, retrieve),
    route("POST", "/v1/customers/{id}", CREATE, update),
    route("DELETE", "/v1/customers/{id}", {}, delete),
)
