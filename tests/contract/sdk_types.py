"""What the SDK's generated types say: names of parameters, and whether a JSON object is of a resource's form."""

from __future__ import annotations

import types
import typing
from typing import Any, Literal, get_args, get_origin

from stripe import StripeObject
from stripe._request_options import RequestOptions
from stripe._stripe_object import UntypedStripeObject

#: Options of the SDK's own, which never reach the server.
OPTIONS = frozenset(RequestOptions.__annotations__)


def required(params: Any) -> set[str]:
    """Return the names of a params TypedDict that must be given."""
    return set(params.__required_keys__) - OPTIONS


def accepted(params: Any) -> set[str]:
    """Return all names of a params TypedDict that reach the server."""
    return (set(params.__required_keys__) | set(params.__optional_keys__)) - OPTIONS


def fields(resource: type) -> dict[str, Any]:
    """Return the fields of a resource class, with their types."""
    hints = typing.get_type_hints(resource)
    return {name: kind for name, kind in hints.items() if name in resource.__annotations__ and name.islower()}


def mismatches(value: Any, kind: Any, where: str) -> list[str]:
    """Return where a JSON value is not of the form that a generated type describes."""
    origin = get_origin(kind)
    if origin is Literal:
        return [] if value in get_args(kind) else [f"{where}: {value!r} is not one of {get_args(kind)}"]
    if origin in {typing.Union, types.UnionType}:
        return [] if any(not mismatches(value, one, where) for one in get_args(kind)) else [f"{where}: {value!r}"]
    if origin is UntypedStripeObject:
        return [] if isinstance(value, dict) else [f"{where}: {value!r} is no map"]
    if isinstance(kind, type) and issubclass(kind, StripeObject):
        return object_mismatches(value, kind, where)
    return [] if type(value) is kind else [f"{where}: {value!r} is not of {kind}"]


def object_mismatches(value: Any, resource: type, where: str) -> list[str]:
    """Compare a JSON object with a resource class: exactly its keys, each of its type."""
    if not isinstance(value, dict):
        return [f"{where}: {value!r} is no object"]
    described = fields(resource)
    wrong = [f"{where}: lacks {name}" for name in described.keys() - value.keys()]
    wrong += [f"{where}: has {name}" for name in value.keys() - described.keys()]
    for name in described.keys() & value.keys():
        wrong += mismatches(value[name], described[name], f"{where}.{name}")
    return wrong
