"""Prices: per unit, paid once or in each period; a metered one counts the usage of a meter.

Sources: one of `unit_amount` and `unit_amount_decimal`, at most 12 decimals, and the lookup keys are in the API
reference; that a metered price needs a meter is in the guide to the removal of usage records. Tiers are not here.
"""

from __future__ import annotations

import dataclasses
from decimal import Decimal
from typing import Any, Final

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.billed_records import Price
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.metadata import updated
from billing.sinks.stripe.sandbox.pages import page
from billing.sinks.stripe.sandbox.params import EXPAND, PAGE, Param, Spec, within
from billing.sinks.stripe.sandbox.records import new_id
from billing.sinks.stripe.sandbox.resources import products
from billing.sinks.stripe.sandbox.resources.price_shape import shape
from billing.sinks.stripe.sandbox.routing import Call, route
from billing.sinks.stripe.sandbox.store import Store

INTERVALS: Final = ("day", "week", "month", "year")
_FIELDS: Final[Spec] = {
    **EXPAND,
    "active": Param(kind="boolean"),
    "lookup_key": Param(longest=200),
    "metadata": Param(kind="strings", longest=500),
    "nickname": Param(),
    "transfer_lookup_key": Param(kind="boolean"),
}
RECURRING: Final[Spec] = {
    "interval": Param(required=True, choices=INTERVALS),
    "interval_count": Param(kind="integer"),
    "meter": Param(),
    "usage_type": Param(choices=("licensed", "metered")),
}
CREATE: Final[Spec] = {
    **_FIELDS,
    "billing_scheme": Param(choices=("per_unit",)),
    "currency": Param(required=True, longest=3),
    "product": Param(),
    "recurring": Param(kind="object", fields=RECURRING),
    "unit_amount": Param(kind="integer"),
    "unit_amount_decimal": Param(kind="decimal"),
}
UPDATE: Final = _FIELDS
LIST: Final[Spec] = {
    **PAGE,
    "active": Param(kind="boolean"),
    "created": Param(kind="range"),
    "currency": Param(longest=3),
    "lookup_keys": Param(kind="list"),
    "product": Param(),
    "recurring": Param(
        kind="object",
        fields={
            "interval": Param(choices=INTERVALS),
            "meter": Param(),
            "usage_type": Param(choices=("licensed", "metered")),
        },
    ),
    "type": Param(choices=("one_time", "recurring")),
}
_DETAILS: Final = ("nickname",)


def create(call: Call) -> dict[str, Any]:
    """`POST /v1/prices`."""
    given, recurring = call.params, call.params.get("recurring", {})
    if not given.get("product"):
        message = "You must specify either `product` or `product_data` when creating a price."
        raise Refusal(400, message, code="parameter_missing", param="product")
    metered = recurring.get("usage_type") == "metered"
    if metered != bool(recurring.get("meter")):
        message = "A price has a meter if and only if its usage_type is metered."
        raise Refusal(400, message, param="recurring[meter]")
    if metered and call.store.meter(recurring["meter"]) is None:
        raise errors.no_such("billing meter", recurring["meter"], param="recurring[meter]", status=400)
    made = Price(
        id=new_id("price"),
        created=call.now,
        active=given.get("active", True),
        product=products.existing(call.store, given["product"]).id,
        currency=given["currency"].lower(),
        unit_amount_decimal=_amount(given),
        lookup_key=_free_lookup_key(call),
        interval=recurring.get("interval"),
        interval_count=recurring.get("interval_count", 1),
        meter=recurring.get("meter"),
        details=updated({"nickname": None, "metadata": {}}, given, _DETAILS),
    )
    if not 1 <= made.interval_count <= 3 * 365:
        raise Refusal(400, "Invalid interval_count: at most three years", param="recurring[interval_count]")
    call.store.documents.put(made)
    return shape(made)


def retrieve(call: Call) -> dict[str, Any]:
    """`GET /v1/prices/{id}`."""
    return shape(_found(call))


def update(call: Call) -> dict[str, Any]:
    """`POST /v1/prices/{id}`. What a price costs never changes."""
    found = _found(call)
    changed = dataclasses.replace(
        found,
        active=call.params.get("active", found.active),
        lookup_key=_free_lookup_key(call) if "lookup_key" in call.params else found.lookup_key,
        details=updated(found.details, call.params, _DETAILS),
    )
    call.store.documents.put(changed)
    return shape(changed)


def list_all(call: Call) -> dict[str, Any]:
    """`GET /v1/prices`, newest first."""
    wanted = [shape(one) for one in call.store.documents.of(Price) if _matches(one, call.params)]
    return page(wanted, call.params, url="/v1/prices")


def existing(store: Store, price_id: str, param: str) -> Price:
    """Return an active price that a parameter names."""
    found = store.documents.get(Price, price_id)
    if found is None:
        raise errors.no_such("price", price_id, param=param, status=400)
    if not found.active:
        message = f"The price specified is inactive. This field only accepts active prices: {price_id}"
        raise Refusal(400, message, param=param)
    return found


def _matches(price: Price, given: dict[str, Any]) -> bool:
    seen = shape(price)
    recurring = seen["recurring"] or {}
    return (
        all(given.get(name) in {None, seen[name]} for name in ("active", "currency", "product", "type"))
        and all(recurring.get(name) == value for name, value in given.get("recurring", {}).items())
        and within(price.created, given.get("created"))
        and ("lookup_keys" not in given or price.lookup_key in given["lookup_keys"])
    )


def _amount(given: dict[str, Any]) -> str:
    whole, exact = given.get("unit_amount"), given.get("unit_amount_decimal")
    if (whole is None) == (exact is None):
        raise Refusal(400, "You must specify exactly one of unit_amount and unit_amount_decimal", param="unit_amount")
    amount = Decimal(str(whole)) if exact is None else Decimal(exact)
    if amount < 0:
        raise Refusal(400, "Invalid unit_amount: must be greater than or equal to 0", param="unit_amount")
    return f"{amount.normalize():f}"


def _free_lookup_key(call: Call) -> str | None:
    """Return the key that was asked for; another price that has it gives it up, or the call is refused."""
    key: str | None = call.params.get("lookup_key") or None
    for price in call.store.documents.of(Price):
        if key is None or price.lookup_key != key or price.id == call.id:
            continue
        if not call.params.get("transfer_lookup_key"):
            message = f"A price (`{price.id}`) already uses that lookup key."
            raise Refusal(400, message, code="resource_already_exists", param="lookup_key")
        call.store.documents.put(dataclasses.replace(price, lookup_key=None))
    return key


def _found(call: Call) -> Price:
    found = call.store.documents.get(Price, call.id)
    if found is None:
        raise errors.no_such("price", call.id)
    return found


ROUTES: Final = (
    route("POST", "/v1/prices", CREATE, create),
    route("GET", "/v1/prices", LIST, list_all),
    route("GET", "/v1/prices/{id}", EXPAND, retrieve),
    route("POST", "/v1/prices/{id}", UPDATE, update),
)
