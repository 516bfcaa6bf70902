"""The outbox: settled events that no broker has confirmed yet. `settle` adds an entry, a confirm removes it.

A removal may be sent again, or come late: until then the event is at most published once more, which the log knows.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from billing.core.errors import Retryable
from billing.credits.calling import Calling
from billing.credits.entries import OutboxEntry
from billing.credits.scripts import Command

logger = logging.getLogger(__name__)

#: Names an entry: its shard, and its id there.
Entry = tuple[int, str]


class Outbox(Calling):
    """The outbox of each shard."""

    def forget(self, entries: Sequence[Entry]) -> None:
        """Remove confirmed entries, in one round trip. Raises the first failure, once all others are removed."""
        if entries:
            self._scripts.run_all([self._removal(*part) for part in _by_shard(entries).items()])

    def forget_reached(self, entries: Sequence[Entry]) -> list[Entry]:
        """Remove confirmed entries, in one round trip; return those that are to be removed later (L10)."""
        parts = _by_shard(entries)
        return _left(parts, self._scripts.run_each([self._removal(*part) for part in parts.items()])) if parts else []

    def outbox(self, shard: int, *, older_than_ms: int, count: int) -> list[OutboxEntry]:
        """Return the oldest entries of a shard, at most `count`, that are at least so old by Redis' clock.

        An entry from the future counts as old: the clock was ahead once, and its real age is not known.
        """
        found, time = self._scripts.run_all([("XRANGE", self._keys[shard].outbox, "-", "+", "COUNT", count), ("TIME",)])
        now_ms = int(time[0]) * 1_000 + int(time[1]) // 1_000
        entries = []
        for entry_id, fields in found:
            age_ms = now_ms - int(entry_id.split(b"-")[0])
            if age_ms < 0 or age_ms >= older_than_ms:
                event = fields[b"e"] if isinstance(fields, dict) else fields[1]
                entries.append(OutboxEntry(entry_id=entry_id.decode(), event=event, age_ms=max(age_ms, 0)))
        return entries

    def outbox_depth(self, shard: int) -> int:
        """Return how many events of a shard wait for their confirm."""
        return int(self._scripts.run(("XLEN", self._keys[shard].outbox)))

    def _run_with_riders(self, command: Command, shard: int, entries: Sequence[Entry]) -> tuple[Any, list[Entry]]:
        """Send a command to its shard, and with it removals to the same node; return its answer, and what is left.

        On another node a removal might have to be waited for, while this command's node has answered (L10).
        """
        node = self.node_of(shard)
        parts = _by_shard(entries)
        riding = {other: ids for other, ids in parts.items() if other == shard or self.node_of(other) == node}
        *removed, answer = self._scripts.run_each([*(self._removal(*part) for part in riding.items()), command])
        if isinstance(answer, Exception):
            raise answer
        staying = [(other, entry_id) for other, entry_id in entries if other not in riding]
        return answer, staying + _left(riding, removed)

    def _removal(self, shard: int, ids: Sequence[str]) -> Command:
        return ("XDEL", self._keys[shard].outbox, *ids)


def _by_shard(entries: Sequence[Entry]) -> dict[int, list[str]]:
    by_shard: dict[int, list[str]] = {}
    for shard, entry_id in entries:
        by_shard.setdefault(shard, []).append(entry_id)
    return by_shard


def _left(parts: dict[int, list[str]], answers: Sequence[Any]) -> list[Entry]:
    """Return the entries that a later try may remove; what is refused for good is told, and tried no more (L9)."""
    left: list[Entry] = []
    for (shard, ids), answer in zip(parts.items(), answers, strict=True):
        if isinstance(answer, Retryable):
            left += [(shard, entry_id) for entry_id in ids]
        elif isinstance(answer, Exception):
            logger.error("billing: confirmed events of shard %d cannot be removed: %s", shard, answer)
    return left
