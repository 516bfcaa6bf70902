"""One row of the table that `make bench` prints: a figure, what it is measured against, and the mark.

A row may be more than that: an alternative says which promise it lacks, a growth has a figure for each size, and a
missed mark has its cause.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

_T = TypeVar("_T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Point:
    """A figure at one size, and how many times that of the smallest size it is."""

    size: int
    value: float
    ratio: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Row:
    """A measured figure. `mark` is None where none is set; `met` is None then, and where it could not be measured.

    `raw` holds the figures behind the value, such as one per round; they go into the JSON, not into the table.
    `lacks` is of an alternative: the promise that it does not keep. `series` is of a growth, whose sizes are `sizes`
    (a plural noun); the row's own value is then the last point's ratio.
    """

    name: str
    value: float
    unit: str
    against: str
    mark: float | None
    met: bool | None
    raw: Mapping[str, object] = field(default_factory=dict)
    lacks: str = ""
    cause: str = ""
    sizes: str = ""
    series: tuple[Point, ...] = ()

    @property
    def score(self) -> float | None:
        """How far beyond its mark the figure is: 1 is just met, 2 is twice as good; None without a measured mark.

        Some marks are the least that is wanted and some the most; which one it is follows from `met`.
        """
        if self.mark is None or self.met is None or self.value <= 0:
            return None
        at_least = (self.value >= self.mark) == self.met
        return self.value / self.mark if at_least else self.mark / self.value


def alternated(sides: Iterable[_T], number: int) -> list[_T]:
    """Return the sides in the order of a round: each second round begins with the last, which finds another machine."""
    return list(sides)[:: -1 if number % 2 else 1]


def growth(name: str, *, sizes: str, unit: str, against: str, figures: Iterable[tuple[int, Sequence[float]]]) -> Row:
    """Return the row of what grows. `figures` are the sizes, the smallest first, with what was measured at each.

    Sizes that took turns have as many figures each: the ratio is then the median of the turns' ratios.
    """
    found = list(figures)
    least = found[0][1]
    series = tuple(
        Point(
            size=size,
            value=statistics.median(values),
            ratio=statistics.median(value / first for first, value in zip(least, values, strict=True)),
        )
        for size, values in found
    )
    times = f"{series[-1].size:,} {sizes} against {series[0].size:,}"
    return Row(
        name=name,
        value=series[-1].ratio,
        unit=f"x the {unit}",
        against=f"{times}; {against}",
        mark=None,
        met=None,
        sizes=sizes,
        series=series,
    )


def alternative(name: str, *, rate: float, ours: float, against: str, lacks: str, raw: Mapping[str, object]) -> Row:
    """Return the row of another way to do the same: how many times as fast ours is, and what the other lacks."""
    return Row(
        name=name,
        value=ours / rate,
        unit="x the rate",
        against=f"{against}: {rate:,.0f}/s (ours: {ours:,.0f}/s)",
        mark=None,
        met=None,
        raw=raw,
        lacks=lacks,
    )
