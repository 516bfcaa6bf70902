"""What a call takes: names, types and lengths, checked before anything is executed.

Guarantee: an unknown parameter is refused, as Stripe does, never ignored; a refusal here saves nothing under an
idempotency key.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Final, Literal

from billing.sinks.stripe.sandbox.errors import Refusal

Kind = Literal["string", "integer", "strings", "list", "object"]
STRING_MAX: Final = 5_000
LIST_PARAMS_LIMIT: Final = 100
LIST_DEFAULT: Final = 10


@dataclasses.dataclass(frozen=True, kw_only=True)
class Param:
    """One parameter. `strings` is a map of text to text; `fields` are those of an `object`."""

    kind: Kind = "string"
    required: bool = False
    longest: int = STRING_MAX
    choices: tuple[str, ...] = ()
    fields: Mapping[str, Param] = dataclasses.field(default_factory=dict)


Spec = Mapping[str, Param]

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


def _value(name: str, value: Any, param: Param) -> Any:
    if param.kind == "object":
        if not isinstance(value, dict):
            raise Refusal(400, "Invalid object", param=name)
        return check(value, param.fields, inside=name)
    if param.kind == "strings":
        if value == "":
            return {}
        if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
            raise Refusal(400, f"Invalid {name}: must be a map of strings to strings", param=name)
        return {key: _text(f"{name}[{key}]", text, param) for key, text in value.items()}
    if param.kind == "list":
        return list(value.values()) if isinstance(value, dict) else [value]
    if not isinstance(value, str):
        raise Refusal(400, f"Invalid string: {name}", param=name)
    if param.kind == "integer":
        if not re.fullmatch(r"-?[0-9]{1,18}", value):
            raise Refusal(400, f"Invalid integer: {value[:100]}", code="parameter_invalid_integer", param=name)
        return int(value)
    return _text(name, value, param)


def _text(name: str, value: str, param: Param) -> str:
    if len(value) > param.longest:
        message = f"Invalid string: {value[:20]}…; must be at most {param.longest} characters"
        raise Refusal(400, message, param=name)
    if param.choices and value not in param.choices:
        raise Refusal(400, f"Invalid {name}: must be one of {', '.join(param.choices)}", param=name)
    return value
