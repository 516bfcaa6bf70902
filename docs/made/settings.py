"""The settings, each with its rule: what its own parser says when it refuses a value."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from billing.core.errors import InvalidValue
from billing.core.settings import FIELDS, without_password
from docs.made.markdown import code, table

#: What no setting takes, to hear its rule. A percentage, a name and a URL alike are refused for it.
_NOTHING: Final = "?"


def settings() -> str:
    """Return a table of all settings: key, variable, default, rule and meaning."""
    rows = (
        (
            code(f"billing_{name}"),
            code(f"BILLING_{name.upper()}"),
            code(_default(field)),
            rule_of(name, field),
            field.metadata["meaning"],
        )
        for name, field in FIELDS.items()
    )
    return table(("key", "environment variable", "default", "rule", "what it is"), rows)


def rule_of(name: str, field: dataclasses.Field[Any]) -> str:
    """Return what a value must be."""
    try:
        field.metadata["parse"](f"billing_{name}", _NOTHING)
    except InvalidValue as refused:
        return refused.rule.removeprefix("must be ")
    raise AssertionError(f"billing_{name} takes {_NOTHING!r}: what is its rule?")


def _default(field: dataclasses.Field[Any]) -> object:
    """Return a default; of an address without user and password."""
    if isinstance(field.default, str) and "://" in field.default:
        return without_password(field.default)
    if isinstance(field.default, float):
        return f"{field.default:.10g}"
    if isinstance(field.default, tuple):
        return ",".join(str(part) for part in field.default)
    return str(field.default).lower() if isinstance(field.default, bool) else field.default
