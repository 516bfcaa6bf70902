"""Messages that wait to be written together, in the order in which they came. Pure: no broker, no database, no clock.

A batch is due when it is full by count or by bytes, or when its first message is old enough. More messages than one
batch may wait (the broker sends ahead); `take` cuts one batch from the front, so that the last tag of what it
returns covers exactly that batch.
"""

from __future__ import annotations

import collections

from billing.fulfillment.delivery import Delivered


class Received(Delivered, frozen=True, kw_only=True, gc=False):
    """A message with the channel's tag for its ack, and the outbox entry that it came from, where a header tells."""

    tag: int | str
    shard: int | None = None
    entry_id: str | None = None


class Batch:
    """What was received and not yet taken."""

    def __init__(self, *, events_max: int, bytes_max: int, age_max_seconds: float) -> None:
        self._events_max = events_max
        self._bytes_max = bytes_max
        self._age_max_seconds = age_max_seconds
        self._waiting: collections.deque[Received] = collections.deque()
        self._came: collections.deque[float] = collections.deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, received: Received, now: float) -> None:
        """Append a message that came at `now` (monotonic seconds)."""
        self._waiting.append(received)
        self._came.append(now)
        self._bytes += len(received.body)

    @property
    def oldest(self) -> float | None:
        """When the first message came, in monotonic seconds; None without one. For any thread."""
        try:
            return self._came[0]
        except IndexError:
            return None

    @property
    def full(self) -> bool:
        """Whether a batch is full by count or by bytes."""
        return len(self._waiting) >= self._events_max or self._bytes >= self._bytes_max

    def due(self, now: float) -> bool:
        """Return whether a batch should be written: it is full, or its first message has waited long enough."""
        return self.full or self.seconds_left(now) == 0.0

    def seconds_left(self, now: float) -> float | None:
        """Return how long the first message may still wait; None without one."""
        if not self._waiting:
            return None
        return max(0.0, self._came[0] + self._age_max_seconds - now)

    def take(self) -> list[Received]:
        """Remove and return one batch, within both bounds; a message larger than the bound goes alone."""
        taken: list[Received] = []
        size = 0
        while self._waiting and len(taken) < self._events_max:
            length = len(self._waiting[0].body)
            if taken and size + length > self._bytes_max:
                break
            size += length
            taken.append(self._waiting.popleft())
            self._came.popleft()
        self._bytes -= size
        return taken

    def clear(self) -> None:
        """Drop everything: the channel that the tags belong to is gone, and the broker will send it again."""
        self._waiting.clear()
        self._came.clear()
        self._bytes = 0
