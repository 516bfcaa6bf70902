"""One row of the table that `make bench` prints: a figure, what it is measured against, and the mark."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A measured figure. `met` is None where it could not be measured; `against` then says why."""

    name: str
    value: float
    unit: str
    against: str
    mark: str
    met: bool | None
