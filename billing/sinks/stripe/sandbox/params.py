"""What a call takes: names, types and lengths, checked before anything is executed.

Guarantee: an unknown parameter is refused, as Stripe does, never ignored; a refusal here saves nothing under an
idempotency key.
"""

from __future__ import annotations

import dataclasses
import operator
import re
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal

from billing.sinks.stripe.sandbox.errors import Refusal

Kind = Literal[
    "string",
    "integer",
    "boolean",
    "decimal",  # a text: what is exact must not become a float
    "strings",
    "list",
    "object",
    "objects",
    "range",  # one second, or some of gt, gte, lt, lte
]
STRING_MAX: Final = 5_000
LIST_PARAMS_LIMIT: Final = 100
LIST_DEFAULT: Final = 10
#: Characters of an unknown name that its refusal repeats.
_NAME_SHOWN_MAX: Final = 200


@dataclasses.dataclass(frozen=True, kw_only=True)
class Param:
    """One parameter. `strings` is a map of text to text; `fields` are those of an `object`, or of each of `objects`."""

    kind: Kind = "string"
    required: bool = False
    longest: int = STRING_MAX
    choices: tuple[str, ...] = ()
    fields: Mapping[str, Param] = dataclasses.field(default_factory=dict)


Spec = Mapping[str, Param]
RANGE: Final[Spec] = {name: Param(kind="integer") for name in ("gt", "gte", "lt", "lte")}

EXPAND: Final[Spec] = {"expand": Param(kind="list")}
PAGE: Final[Spec] = {
    **EXPAND,
    "limit": Param(kind="integer"),
    "starting_after": Param(),
    "ending_before": Param(),
}


def check(given: Mapping[str, Any], spec: Spec, *, inside: str = "") -> dict[str, Any]:
    """Return the parameters with their types; raise the first `Refusal`. Names in it are Stripe's: `payload[value]`."""
    checked: dict[str, Any] = {}
    for name, value in given.items():
        full = f"{inside}[{name}]" if inside else name
        if name not in spec:
            full = full[:_NAME_SHOWN_MAX]
            raise Refusal(400, f"Received unknown parameter: {full}", code="parameter_unknown", param=full)
        checked[name] = _value(full, value, spec[name])
    for name, param in spec.items():
        if param.required and checked.get(name) in (None, "", {}):
            full = f"{inside}[{name}]" if inside else name
            raise Refusal(400, f"Missing required param: {full}.", code="parameter_missing", param=full)
    return checked


def page_limit(params: Mapping[str, Any]) -> int:
    """Return how many objects a page may hold."""
    limit = params.get("limit", LIST_DEFAULT)
    if not 1 <= limit <= LIST_PARAMS_LIMIT:
        raise Refusal(400, f"Invalid limit: must be from 1 to {LIST_PARAMS_LIMIT}", param="limit")
    return int(limit)


def within(seconds: int, wanted: Any) -> bool:
    """Whether a second is in a `range`; without one every second is."""
    if wanted is None:
        return True
    if isinstance(wanted, int):
        return seconds == wanted
    compare = {"gt": operator.gt, "gte": operator.ge, "lt": operator.lt, "lte": operator.le}
    return all(compare[name](seconds, bound) for name, bound in wanted.items())


def _value(name: str, value: Any, param: Param) -> Any:
    if param.kind in _NESTED and (param.kind != "range" or isinstance(value, dict)):
        return _NESTED[param.kind](name, value, param)
    if not isinstance(value, str):
        raise Refusal(400, f"Invalid string: {name}", param=name)
    if param.kind in _SIMPLE:
        form, read = _SIMPLE[param.kind]
        if not form.fullmatch(value):
            kind = "integer" if param.kind == "range" else param.kind
            raise Refusal(400, f"Invalid {kind}: {value[:100]}", code=f"parameter_invalid_{kind}", param=name)
        return read(value)
    return _text(name, value, param)


def _object(name: str, value: Any, param: Param) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise Refusal(400, "Invalid object", param=name)
    return check(value, RANGE if param.kind == "range" else param.fields, inside=name)


def _objects(name: str, value: Any, param: Param) -> list[dict[str, Any]]:
    if not isinstance(value, dict) or not all(isinstance(one, dict) for one in value.values()):
        raise Refusal(400, "Invalid array", param=name)
    return [check(one, param.fields, inside=f"{name}[{place}]") for place, one in value.items()]


def _strings(name: str, value: Any, param: Param) -> dict[str, str]:
    if value == "":
        return {}
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise Refusal(400, f"Invalid {name}: must be a map of strings to strings", param=name)
    return {key: _text(f"{name}[{key}]", text, param) for key, text in value.items()}


def _list(name: str, value: Any, param: Param) -> list[Any]:  # noqa: ARG001 - the form of all that are nested
    return list(value.values()) if isinstance(value, dict) else [value]


def _text(name: str, value: str, param: Param) -> str:
    if len(value) > param.longest:
        message = f"Invalid string: {value[:20]}…; must be at most {param.longest} characters"
        raise Refusal(400, message, param=name)
    if param.choices and value not in param.choices:
        raise Refusal(400, f"Invalid {name}: must be one of {', '.join(param.choices)}", param=name)
    return value


_NESTED: Final[Mapping[str, Callable[[str, Any, Param], Any]]] = {
    "object": _object,
    "objects": _objects,
    "range": _object,
    "strings": _strings,
    "list": _list,
}
_WHOLE: Final = re.compile(r"-?[0-9]{1,18}")
_SIMPLE: Final[Mapping[str, tuple[re.Pattern[str], Callable[[str], Any]]]] = {
    "integer": (_WHOLE, int),
    "range": (_WHOLE, int),
    "boolean": (re.compile("true|false"), "true".__eq__),
    "decimal": (re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,12})?"), str),
}
