"""One row of the table that `make bench` prints: a figure, what it is measured against, and the mark."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A measured figure. `mark` is None where none is set; `met` is None then, and where it could not be measured."""

    name: str
    value: float
    unit: str
    against: str
    mark: float | None
    met: bool | None
