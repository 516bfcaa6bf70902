"""What the SDK's generated types say: names of parameters, and whether a JSON object is of a resource's form."""

from __future__ import annotations

import sys
import types
import typing
from decimal import Decimal, InvalidOperation
from typing import Any, Literal, get_args, get_origin

import stripe
from stripe import ListObject, StripeObject
from stripe._request_options import RequestOptions
from stripe._stripe_object import UntypedStripeObject

#: Options of the SDK's own, which never reach the server.
OPTIONS = frozenset(RequestOptions.__annotations__)
#: Fields that are there only on an object that was deleted, or when they are asked for (`expand`).
ON_REQUEST = frozenset({"deleted", "currency_options", "tiers", "payments", "confirmation_secret"})


class Unlisted(StripeObject):
    """A resource that the SDK's main module does not name: the stand-in returns none of them."""


class Names(dict[str, Any]):
    """Where the generated types find the resources that they name."""

    def __missing__(self, name: str) -> Any:
        if hasattr(stripe, name):
            return getattr(stripe, name)
        if name[:1].isupper() and name not in dir(typing):
            return Unlisted
        raise KeyError(name)


def required(params: Any) -> set[str]:
    """Return the names of a params TypedDict that must be given."""
    return set(params.__required_keys__) - OPTIONS


def accepted(params: Any) -> set[str]:
    """Return all names of a params TypedDict that reach the server."""
    return (set(params.__required_keys__) | set(params.__optional_keys__)) - OPTIONS


def fields(resource: type) -> dict[str, Any]:
    """Return the fields of a resource class, with their types, those of its parents too."""
    found: dict[str, Any] = {}
    for one in reversed(resource.__mro__):
        if issubclass(one, StripeObject) and one is not StripeObject and one.__module__ != "stripe._stripe_object":
            names = Names({**vars(sys.modules[one.__module__]), **vars(one)})
            holder = types.SimpleNamespace(__annotations__=vars(one).get("__annotations__", {}))
            hints = typing.get_type_hints(holder, vars(sys.modules[one.__module__]), names)
            found |= {name: kind for name, kind in hints.items() if name.islower() and not name.startswith("_")}
    return found


def mismatches(value: Any, kind: Any, where: str) -> list[str]:
    """Return where a JSON value is not of the form that a generated type describes."""
    origin = get_origin(kind)
    if origin is Literal:
        return [] if value in get_args(kind) else [f"{where}: {value!r} is not one of {get_args(kind)}"]
    if origin in {typing.Union, types.UnionType}:
        return _union_mismatches(value, get_args(kind), where)
    if origin in {list, ListObject}:
        return _list_mismatches(value, get_args(kind)[0], where, bare=origin is list)
    if isinstance(kind, type) and issubclass(kind, StripeObject):
        return object_mismatches(value, kind, where)
    if origin is UntypedStripeObject:
        kind = dict
    fits = _is_decimal(value) if kind is Decimal else type(value) is kind
    return [] if fits else [f"{where}: {value!r} is not of {kind}"]


def object_mismatches(value: Any, resource: type, where: str) -> list[str]:
    """Compare a JSON object with a resource class: exactly its keys, each of its type."""
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no object"]
    described = fields(resource)
    wrong = [f"{where}: lacks {name}" for name in described.keys() - value.keys() - ON_REQUEST]
    wrong += [f"{where}: has {name}" for name in value.keys() - described.keys()]
    for name in described.keys() & value.keys():
        wrong += mismatches(value[name], described[name], f"{where}.{name}")
    return wrong


def _list_mismatches(value: Any, kind: Any, where: str, *, bare: bool) -> list[str]:
    """Compare each of a list; Stripe's own lists have an envelope."""
    data = value
    if not bare:
        if not isinstance(value, dict) or value.keys() != {"object", "data", "has_more", "url"}:
            return [f"{where}: {value!r} is no list of Stripe's"]
        data = value["data"]
    if not isinstance(data, list):
        return [f"{where}: {data!r} is no list"]
    return [wrong for one in data for wrong in mismatches(one, kind, f"{where}[]")]


def _union_mismatches(value: Any, kinds: tuple[Any, ...], where: str) -> list[str]:
    """Of several forms one must fit; an object that fits none is compared with the form that is an object's."""
    tried = [mismatches(value, one, where) for one in kinds]
    if any(not wrong for wrong in tried):
        return []
    return max(tried, key=len) if isinstance(value, dict | list) else [f"{where}: {value!r} is of none of {kinds}"]


def _is_decimal(value: Any) -> bool:
    try:
        return isinstance(value, str) and Decimal(value).is_finite()
    except InvalidOperation:
        return False
