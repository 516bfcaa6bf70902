"""What a consumer has in hand and how long that waits: plain numbers, for whoever wants to show them.

The consumer notes; nothing here knows what reads it. Every number is read in one step, so that a reader in another
thread needs no lock.
"""

from __future__ import annotations

import bisect
import dataclasses
from collections.abc import Sequence
from typing import Final

#: Upper bounds of the times that writes take, in seconds: a batch takes tens of milliseconds where all is well.
WRITE_SECONDS_BOUNDS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pressure:
    """One look at a consumer."""

    #: Messages received and not acked, and how many the broker sends at most.
    in_hand: int
    in_hand_max: int
    #: How long the oldest of them has waited; 0: there is none.
    oldest_seconds: float
    #: How long the batch that is being written has been at it; 0: none is.
    write_seconds: float
    #: How long PostgreSQL has taken no batch, though one was tried; 0: it takes them.
    database_seconds: float
    #: How often it did not, ever.
    database_failures: int
    #: Usage queues that it is subscribed to now.
    queues: int
    #: What it has written, ever.
    events: int
    rows: int
    duplicates: int
    dead_letters: int
    #: Of the dead letters those that were refused for their signature; and messages that came signed, over this
    #: connection, though no signature is asked for.
    forged: int
    signed_unasked: int
    #: Writes by the time they took: one count per bound and one beyond, and the seconds of all together.
    writes: Sequence[int]
    writes_seconds: float


class WriteTimes:
    """How long writes took. For one writing thread, and any reading ones."""

    def __init__(self) -> None:
        self.counts = [0] * (len(WRITE_SECONDS_BOUNDS) + 1)
        self.seconds = 0.0

    def note(self, seconds: float) -> None:
        """Count a write."""
        self.counts[bisect.bisect_left(WRITE_SECONDS_BOUNDS, seconds)] += 1
        self.seconds += seconds
