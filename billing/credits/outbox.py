"""The outbox: settled events that no broker has confirmed yet. `settle` adds an entry, a confirm removes it."""

from __future__ import annotations

from collections.abc import Sequence

from billing.credits.calling import Calling
from billing.credits.scripts import Command
from billing.credits.values import OutboxEntry


class Outbox(Calling):
    """The outbox of each shard."""

    def forget(self, entries: Sequence[tuple[int, str]]) -> None:
        """Remove confirmed entries, each (shard, entry id), in one round trip."""
        if entries:
            self._scripts.run_all(self._removals(entries))

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

    def _removals(self, entries: Sequence[tuple[int, str]]) -> list[Command]:
        by_shard: dict[int, list[str]] = {}
        for shard, entry_id in entries:
            by_shard.setdefault(shard, []).append(entry_id)
        return [("XDEL", self._keys[shard].outbox, *ids) for shard, ids in by_shard.items()]
