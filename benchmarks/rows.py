"""One row of the table that `make bench` prints: a figure, what it is measured against, and the mark."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A measured figure. `mark` is None where none is set; `met` is None then, and where it could not be measured.

    `raw` holds the figures behind the value, such as one per round; they go into the JSON, not into the table.
    """

    name: str
    value: float
    unit: str
    against: str
    mark: float | None
    met: bool | None
    raw: Mapping[str, object] = field(default_factory=dict)

    @property
    def score(self) -> float | None:
        """How far beyond its mark the figure is: 1 is just met, 2 is twice as good; None without a measured mark.

        Some marks are the least that is wanted and some the most; which one it is follows from `met`.
        """
        if self.mark is None or self.met is None or self.value <= 0:
            return None
        at_least = (self.value >= self.mark) == self.met
        return self.value / self.mark if at_least else self.mark / self.value
