"""Products: what a price is the price of."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.billed_records import Product
from billing.sinks.stripe.sandbox.metadata import updated
from billing.sinks.stripe.sandbox.pages import page
from billing.sinks.stripe.sandbox.params import EXPAND, PAGE, Param, Spec, within
from billing.sinks.stripe.sandbox.records import new_id
from billing.sinks.stripe.sandbox.routing import Call, route
from billing.sinks.stripe.sandbox.store import Store

_FIELDS: Final[Spec] = {
    **EXPAND,
    "active": Param(kind="boolean"),
    "description": Param(),
    "metadata": Param(kind="strings", longest=500),
    "statement_descriptor": Param(longest=22),
    "tax_code": Param(),
    "unit_label": Param(longest=12),
    "url": Param(),
}
CREATE: Final[Spec] = {**_FIELDS, "name": Param(required=True), "id": Param(longest=255)}
UPDATE: Final[Spec] = {**_FIELDS, "name": Param()}
LIST: Final[Spec] = {
    **PAGE,
    "active": Param(kind="boolean"),
    "created": Param(kind="range"),
    "ids": Param(kind="list"),
}
_DETAILS: Final = ("name", "description", "statement_descriptor", "tax_code", "unit_label", "url")


def create(call: Call) -> dict[str, Any]:
    """`POST /v1/products`. The id may be the caller's own."""
    product_id = call.params.get("id") or new_id("prod")
    if call.store.documents.get(Product, product_id) is not None:
        message = "Product already exists."
        raise errors.Refusal(400, message, code="resource_already_exists", param="id")
    none: dict[str, Any] = {**dict.fromkeys(_DETAILS), "metadata": {}}
    made = Product(
        id=product_id,
        created=call.now,
        active=call.params.get("active", True),
        details={**updated(none, call.params, _DETAILS), "updated": call.now},
    )
    call.store.documents.put(made)
    return shape(made)


def retrieve(call: Call) -> dict[str, Any]:
    """`GET /v1/products/{id}`."""
    return shape(_found(call))


def update(call: Call) -> dict[str, Any]:
    """`POST /v1/products/{id}`."""
    found = _found(call)
    details = {**updated(found.details, call.params, _DETAILS), "updated": call.now}
    changed = dataclasses.replace(found, active=call.params.get("active", found.active), details=details)
    call.store.documents.put(changed)
    return shape(changed)


def list_all(call: Call) -> dict[str, Any]:
    """`GET /v1/products`, newest first."""
    given = call.params
    wanted = [
        shape(one)
        for one in call.store.documents.of(Product)
        if given.get("active") in {None, one.active}
        and within(one.created, given.get("created"))
        and one.id in given.get("ids", [one.id])
    ]
    return page(wanted, given, url="/v1/products")


def existing(store: Store, product_id: str) -> Product:
    """Return a product that a parameter names."""
    found = store.documents.get(Product, product_id)
    if found is None:
        raise errors.no_such("product", product_id, param="product", status=400)
    return found


def shape(product: Product) -> dict[str, Any]:
    """Return the object that a caller sees."""
    return {
        "id": product.id,
        "object": "product",
        "active": product.active,
        "created": product.created,
        "default_price": None,
        "images": [],
        "livemode": False,
        "marketing_features": [],
        "package_dimensions": None,
        "shippable": None,
        "tax_details": None,
        "type": "service",
        **product.details,
    }


def _found(call: Call) -> Product:
    found = call.store.documents.get(Product, call.id)
    if found is None:
        raise errors.no_such("product", call.id)
    return found


ROUTES: Final = (
    route("POST", "/v1/products", CREATE, create),
    route("GET", "/v1/products", LIST, list_all),
    route("GET", "/v1/products/{id}", EXPAND, retrieve),
    route("POST", "/v1/products/{id}", UPDATE, update),
)
