"""A Redis that takes what is owed, or is away; its shards are on two nodes."""

from __future__ import annotations

import pytest

from billing.core.errors import Unreachable
from billing.task.pending import Entry


class Redis:
    """What is owed to, and what it has taken; `away` makes it refuse."""

    def __init__(self) -> None:
        self.away = False
        self.forgotten: list[Entry] = []
        self.settled: list[str] = []

    def forget(self, entries: list[Entry]) -> list[Entry]:
        """Take confirmed entries, or none of them."""
        if self.away:
            return entries
        self.forgotten += entries
        return []

    def settle(self, name: str) -> None:
        """Take a settle."""
        self._answer()
        self.settled.append(name)

    def _answer(self) -> None:
        if self.away:
            raise Unreachable("billing_redis_url: away")


def node_of(shard: int) -> str:
    """Return the node of a shard: even and odd ones are on two."""
    return "even" if shard % 2 == 0 else "odd"


def fail() -> None:
    """Refuse to be the last resort of a settle that Redis takes."""
    pytest.fail("charged without Redis")
