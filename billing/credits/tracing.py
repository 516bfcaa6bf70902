"""Finds what Redis has of one task: its run's record, its hold, its event in the outbox. Reads, within a bound.

A hold and an event know their task by their text alone, so that they are looked for in all of some shards, those with
the fewest first, until as many were looked at as the caller allows (L9).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final
from uuid import UUID

from billing.credits.calling import Calling
from billing.credits.records import read_hold, read_settled
from billing.credits.scripts import Command
from billing.credits.values import SettledRun, StoredHold

_SLICE: Final = 500


class Tracing(Calling):
    """What a server has of one task."""

    def find_runs(self, run_ids: Sequence[UUID], shards: Sequence[int]) -> list[StoredHold | SettledRun]:
        """Return what is remembered of some runs on some shards: their holds, and their settlements."""
        where = [(self._keys[shard], run_id.hex) for run_id in run_ids for shard in shards]
        commands: list[Command] = [("GET", keys.run + run_id) for keys, run_id in where]
        records = self._scripts.run_all(commands, any_type=True) if commands else []
        found: list[StoredHold | SettledRun] = []
        for (keys, run_id), record in zip(where, records, strict=True):
            settled = read_settled(run_id, record)
            if settled is not None:
                found.append(settled)
            elif record is not None:
                deadline = self._scripts.run(("ZSCORE", keys.leases, run_id))
                hold = read_hold(run_id, int(float(deadline or 0)), record)
                found += [] if hold is None else [hold]
        return found

    def holds_with(self, text: bytes, shards: Sequence[int], most: int) -> tuple[list[StoredHold], int]:
        """Return the holds whose record has a text, and how many others were not looked at, past `most`."""
        counts = self._counts([("ZCARD", self._keys[shard].leases) for shard in shards], shards)
        found: list[StoredHold] = []
        for shard, run_ids in self._within(counts, most):
            keys = self._keys[shard]
            records = self._scripts.run(("MGET", *(keys.run + run_id for run_id in run_ids)))
            for run_id, record in zip(run_ids, records, strict=True):
                if record is not None and text in record:
                    deadline = self._scripts.run(("ZSCORE", keys.leases, run_id))
                    hold = read_hold(run_id, int(float(deadline or 0)), record)
                    found += [] if hold is None else [hold]
        return found, max(0, sum(counts.values()) - most)

    def events_with(self, text: bytes, shards: Sequence[int], most: int) -> tuple[list[bytes], int]:
        """Return the events in the outbox that have a text, and how many others were not looked at, past `most`."""
        counts = self._counts([("XLEN", self._keys[shard].outbox) for shard in shards], shards)
        found: list[bytes] = []
        left = most
        for shard, count in sorted(counts.items(), key=lambda item: item[1]):
            start = "-"
            while count and left > 0:
                part = min(_SLICE, left)
                entries = self._scripts.run(("XRANGE", self._keys[shard].outbox, start, "+", "COUNT", part))
                events = [fields[b"e"] if isinstance(fields, Mapping) else fields[1] for _, fields in entries]
                found += [event for event in events if text in event]
                left -= len(events)
                if len(entries) < part:
                    break
                start = f"({entries[-1][0].decode()}"
        return found, max(0, sum(counts.values()) - most)

    def _counts(self, commands: Sequence[Command], shards: Sequence[int]) -> dict[int, int]:
        return dict(zip(shards, map(int, self._scripts.run_all(commands)), strict=True)) if commands else {}

    def _within(self, counts: Mapping[int, int], most: int) -> Iterator[tuple[int, list[str]]]:
        """Yield the ids of runs that have a lease, a slice of a shard at a time, at most `most` of them."""
        left = most
        for shard, count in sorted(counts.items(), key=lambda item: item[1]):
            for first in range(0, min(count, left), _SLICE):
                last = min(first + _SLICE, left) - 1
                found = self._scripts.run(("ZRANGE", self._keys[shard].leases, first, last))
                if found:
                    yield shard, [run_id.decode() for run_id in found]
            left -= min(count, left)
