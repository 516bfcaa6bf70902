"""The usage event as its JSON Schema describes it, and the task event."""

from __future__ import annotations

import json
from collections.abc import Iterator
from importlib import resources
from typing import Any, Final

from billing.observability.task_events import task_event as announced
from billing.task.outcome import Outcome
from docs.made.comments import comments
from docs.made.markdown import code, table

_RULES: Final = {
    "minimum": "at least {}",
    "maximum": "at most {}",
    "minLength": "at least {} characters",
    "maxLength": "at most {} characters",
    "minItems": "at least {}",
    "maxItems": "at most {}",
    "format": "format {}",
    "pattern": "matches `{}`",
    "const": "is `{}`",
    "enum": "one of {}",
}


def usage_event() -> str:
    """Return a table of all fields, those of lines and grants below them."""
    schema = json.loads(resources.files("billing.events").joinpath("usage_event.schema.json").read_text("utf-8"))
    rows = list(_fields(schema, schema["$defs"], ""))
    return f"{schema['description']}\n\n" + table(("field", "type", "rules", "what it says"), rows)


def task_event() -> str:
    """Return the event's name, its fields, and what an outcome means."""
    meanings = comments("billing.task.outcome", "Outcome")
    rows = ((code(each.value), meanings.get(each.name, "")) for each in Outcome if each is not Outcome.HELD)
    fields = ", ".join(code(name) for name in announced.FIELDS)
    head = f"`{announced.TYPE}`, after the billing of a delivery has ended. Its fields: {fields}."
    return head + "\n\n" + table((f"{announced.OUTCOME_FIELD}", "what it means"), rows)


def _fields(schema: dict[str, Any], defs: dict[str, Any], path: str) -> Iterator[tuple[str, str, str, str]]:
    required = schema.get("required", ())
    for name, given in schema.get("properties", {}).items():
        field = _resolved(given, defs)
        shown = f"{path}{name}"
        kind, rules = _kind(field, defs)
        yield code(shown), kind + ("" if name in required else ", may be absent"), rules, given.get("description", "")
        items = _resolved(field.get("items", {}), defs)
        yield from _fields(items, defs, f"{shown}[].")


def _kind(field: dict[str, Any], defs: dict[str, Any]) -> tuple[str, str]:
    """Return a field's type and its rules, in words."""
    choices = [_resolved(choice, defs) for choice in field.get("oneOf", ())]
    kinds = [str(each["type"]) for each in choices or [field] if "type" in each]
    rules = [
        words.format(", ".join(str(part) for part in each[rule]) if isinstance(each[rule], list) else each[rule])
        for each in [field, *choices]
        for rule, words in _RULES.items()
        if rule in each
    ]
    return " or ".join(kinds), "; ".join(rules)


def _resolved(field: dict[str, Any], defs: dict[str, Any]) -> dict[str, Any]:
    """Return a field with what its `$ref` names."""
    reference = field.get("$ref", "")
    return {**defs[reference.rpartition("/")[2]], **field} if reference else field
