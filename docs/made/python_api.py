"""What may be imported: signatures and docstrings of `billing` and of `billing.admin`."""

from __future__ import annotations

import inspect
import re
from types import ModuleType
from typing import Any

import billing
from billing import admin

_MODULE = re.compile(r"\b(?:[a-z_]+\.)+(?=[A-Z])")


def package() -> str:
    """Return all that `billing` has, but what is a page of its own."""
    return "\n\n".join(_entry(f"billing.{name}", getattr(billing, name)) for name in billing.__all__ if name != "admin")


def administration() -> str:
    """Return all that `billing.admin` has."""
    return "\n\n".join(_entry(f"admin.{name}", getattr(admin, name)) for name in admin.__all__)


def _entry(name: str, value: Any) -> str:
    """Return a heading, how it is called, and what its docstring says."""
    if isinstance(value, ModuleType):
        below = [
            _called(f"{name}.{each}", found)
            for each, found in vars(value).items()
            if inspect.isfunction(found) and found.__module__ == value.__name__ and not each.startswith("_")
        ]
        return "\n\n".join([f"### {name}", inspect.getdoc(value) or "", *below])
    if inspect.isclass(value) or callable(value):
        return f"### {name}\n\n{_called(name, value)}"
    return f"### {name}\n\n`{value!r}`"


def _called(name: str, value: Any) -> str:
    said = inspect.getdoc(value) or ""
    try:
        signature = str(inspect.signature(value))
    except ValueError:
        return said
    return f"```text\n{name}{_MODULE.sub('', signature)}\n```\n\n{said}"
