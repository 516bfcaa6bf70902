"""When a client is to be alerted, in plain Python, written apart from the scripts: the oracle of the random walks.

It knows a bucket's marks as sets of percents and works in exact fractions.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

from tests.contract.model import ModelBucket


@dataclass
class AlertModel:
    """One client's alerts. `base` are the grants that its marks are a share of."""

    percents: tuple[int, ...]
    alerted: set[int] = field(default_factory=set)
    base: set[int] = field(default_factory=set)
    raised: list[tuple[int, int, int]] = field(default_factory=list)
    marks: dict[int, Fraction] = field(default_factory=dict)

    def took(self, bucket: ModelBucket, *, refused: bool = False) -> None:
        """Credits were taken, or a reserve was refused: alert the lowest mark that is newly crossed."""
        free = sum(bucket.available.values())
        crossed = {percent for percent, mark in self.marks.items() if free < mark}
        crossed |= {0} if (free == 0 and self.marks) or refused else set()
        new = crossed - self.alerted
        if new:
            self.alerted |= new
            self.raised.append((min(new), free, self._granted(bucket)))

    def gave_back(self, bucket: ModelBucket) -> None:
        """Credits came back: a mark that is well below is armed again; the end stays alerted."""
        free, whole = sum(bucket.available.values()), self._granted(bucket)
        self.alerted = {percent for percent in self.alerted if percent == 0 or not self._lifted(free, percent, whole)}

    def _lifted(self, free: int, percent: int, whole: int) -> bool:
        """Whether there is half as much again as the mark, or, of a high one, half of what is above it."""
        mark = self.marks[percent]
        return free >= min(mark * 3 / 2, (mark + whole) / 2)

    def granted(self, bucket: ModelBucket, grant: int) -> None:
        """Grant: the marks are shares of the grants that are usable now."""
        self.base = {old for old in self.base if bucket.available[old] or bucket.held[old]} | {grant}
        whole = self._granted(bucket)
        self.marks = {percent: Fraction(-(-whole * percent // 100)) for percent in self.percents}
        free = sum(bucket.available.values())
        self.gave_back(bucket)
        if free:
            self.alerted.discard(0)

    def _granted(self, bucket: ModelBucket) -> int:
        return sum(bucket.available[grant] + bucket.held[grant] + bucket.spent[grant] for grant in self.base)
