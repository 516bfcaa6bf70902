"""The marks of a bucket, by which a client is told once that it runs low and once that it ran out. Pure.

A mark is a share of what the usable grants brought, rounded up; percent 0 is the end: nothing is left, or a reserve was
refused. What was alerted stays so until credits come back well above the mark; the end, until a grant leaves something.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

from billing.credits.entries import AlertEntry

#: Of a mark of 100 %.
_WHOLE = 100


class Mark(NamedTuple):
    """Below so many credits a client is told that it has less than this percent."""

    credits: int
    percent: int

    def is_lifted(self, usable: int, brought: int) -> bool:
        """Whether there is half as much again as the mark, or, of a high one, half of what is above it."""
        return 2 * (usable - self.credits) >= min(self.credits, brought - self.credits)


@dataclass(frozen=True, slots=True)
class Marks:
    """The marks of one bucket, highest first. A bucket that was never granted anything has the end alone."""

    armed: tuple[Mark, ...] = (Mark(1, 0),)
    alerted: tuple[Mark, ...] = ()

    @classmethod
    def made(cls, percents: Sequence[int], usable: int, brought: int, alerted: Sequence[Mark] = ()) -> Self:
        """Return the marks after a grant: those that were alerted stay so, unless the bucket is lifted above them."""
        told = {mark.percent for mark in alerted}
        marks = [Mark(-(-brought * percent // _WHOLE), percent) for percent in percents]
        stay = [mark for mark in marks if mark.percent in told and not mark.is_lifted(usable, brought)]
        armed = [mark for mark in marks if mark not in stay]
        end = Mark(1, 0)
        (stay if 0 in told and not usable else armed).append(end)
        return cls(tuple(armed), tuple(stay))

    @property
    def end_alerted(self) -> bool:
        """Whether a refusal has been told since the last grant that left something."""
        return all(mark.percent for mark in self.armed)

    def below(self, usable: int) -> bool:
        """Whether the bucket is below its highest armed mark."""
        return bool(self.armed) and usable < self.armed[0].credits

    def crossed(self, usable: int, *, refused: bool = False) -> tuple[Self, int | None]:
        """Return the marks after a step that took credits, and the lowest percent that is told now, if any."""
        new = [mark for mark in self.armed if usable < mark.credits or (refused and mark.percent == 0)]
        stay = tuple(mark for mark in self.armed if mark not in new)
        return type(self)(stay, (*self.alerted, *new)), new[-1].percent if new else None

    def rearmed(self, usable: int, brought: int) -> Self:
        """Return the marks after credits came back."""
        lifted = [mark for mark in self.alerted if mark.percent and mark.is_lifted(usable, brought)]
        if not lifted:
            return self
        armed = sorted((*self.armed, *lifted), key=lambda mark: -mark.percent)
        return type(self)(tuple(armed), tuple(mark for mark in self.alerted if mark not in lifted))


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """What one entry of the alerts says; `AlertEntry` is how it is read."""

    server: str
    client_id: str
    percent: int
    available: int
    granted: int
    occurred_ms: int
    owed: int = 0
    overdraft_limit: int = 0

    def entry(self, shard: int, entry_id: str) -> AlertEntry:
        """Return it as it is read."""
        return AlertEntry(
            shard=shard,
            entry_id=entry_id,
            server=self.server,
            client_id=self.client_id,
            percent=self.percent,
            available=self.available,
            granted=self.granted,
            occurred_ms=self.occurred_ms,
            owed=self.owed,
            overdraft_limit=self.overdraft_limit,
        )
