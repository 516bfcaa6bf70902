"""The one source of chance, and the one clock, of a simulation: from the same seed comes the same run."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime
from typing import TypeVar

from billing.core.clock import from_milliseconds

T = TypeVar("T")

#: Where every simulation begins, in milliseconds since the Unix epoch (2026-01-01).
BEGINNING_MS = 1_767_225_600_000


class Chance:
    """Everything that happens by chance asks this."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)

    def once_in(self, times: int) -> bool:
        """Return True once in so many times, on average."""
        return self._random.randrange(times) == 0

    def whole(self, least: int, most: int) -> int:
        """Return a whole number, both ends included."""
        return self._random.randint(least, most)

    def one_of(self, choices: Sequence[T]) -> T:
        """Return one of some choices."""
        return self._random.choice(choices)

    def weighted(self, choices: Sequence[tuple[int, T]]) -> T:
        """Return one of some choices, each as often as its weight says."""
        return self._random.choices([choice for _, choice in choices], [weight for weight, _ in choices])[0]


class SimulatedClock:
    """Time that only the simulation moves. A machine's own clock is this one with an offset."""

    def __init__(self) -> None:
        #: The true time, in milliseconds since the Unix epoch.
        self.ms = BEGINNING_MS

    @property
    def elapsed_ms(self) -> int:
        """The milliseconds since the beginning."""
        return self.ms - BEGINNING_MS

    def advance(self, milliseconds: int) -> None:
        """Let time pass."""
        self.ms += milliseconds

    def now(self) -> datetime:
        """Return the true time."""
        return from_milliseconds(self.ms)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self.ms / 1_000


class MachineClock:
    """The clock of one machine: it may be wrong by hours, and is set now and then. Monotonic time is not touched."""

    def __init__(self, true: SimulatedClock) -> None:
        self._true = true
        self.offset_ms = 0

    def now(self) -> datetime:
        """Return what this machine takes for the time."""
        return from_milliseconds(self._true.ms + self.offset_ms)

    def monotonic(self) -> float:
        """Return seconds that never go back."""
        return self._true.monotonic()
