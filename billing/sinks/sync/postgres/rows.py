"""Rows of `stripe_increment` as increments, and back: the columns have the names of the fields."""

from __future__ import annotations

import dataclasses
from typing import Any, Final

from sqlalchemy import RowMapping

from billing.sinks.sink import Kind
from billing.sinks.sync.increment import Increment, State

#: What a query selects for `increment_of`.
NAMES: Final = tuple(field.name for field in dataclasses.fields(Increment))
COLUMNS: Final = ", ".join(NAMES)


def increment_of(row: RowMapping) -> Increment:
    """Return the increment of a row that has all `COLUMNS`."""
    found: dict[str, Any] = dict(row)
    return Increment(**{**found, "kind": Kind(found["kind"]), "state": State(found["state"])})


def row_of(increment: Increment) -> dict[str, Any]:
    """Return all columns of an increment."""
    found = {field.name: getattr(increment, field.name) for field in dataclasses.fields(Increment)}
    return {**found, "kind": increment.kind.value, "state": increment.state.value}
