"""The alerts of each shard: written by `reserve` and `settle` in the step that crossed a mark, read once, then removed.

An entry stays until its reader has it safe, so that nothing is lost between a refusal and its alert; the stream keeps
its newest entries alone while nobody reads (`ALERTS_MAX` in lua/marks.lua).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from billing.credits.calling import Calling
from billing.credits.entries import AlertEntry
from billing.credits.scripts import Command

logger = logging.getLogger(__name__)


class AlertStream(Calling):
    """The alerts that nobody has taken yet."""

    def alerts(self, *, count: int) -> list[AlertEntry]:
        """Return the oldest entries of every shard, at most `count` of each, in one round trip.

        A shard that does not answer is left out. Raises if none does.
        """
        commands: list[Command] = [("XRANGE", keys.alerts, "-", "+", "COUNT", count) for keys in self._keys]
        entries: list[AlertEntry] = []
        unreadable: list[Command] = []
        for shard, found in enumerate(self._answered(commands)):
            for entry_id, fields in found:
                try:
                    entries.append(_entry(shard, entry_id.decode(), fields))
                except (KeyError, ValueError):
                    # Billing did not write it, and it would stand before all others for ever (L10).
                    logger.exception("billing: an alert of shard %d cannot be read: %r", shard, fields)
                    unreadable.append(("XDEL", self._keys[shard].alerts, entry_id))
        if unreadable:
            self._answered(unreadable)
        return entries

    def ends_told(self, client_ids: Sequence[str]) -> set[str]:
        """Return those of these clients whose end was told since a grant last left them something: one round trip."""
        commands: list[Command] = [("GET", self._keys_of(client_id).bucket + client_id) for client_id in client_ids]
        buckets = self._scripts.run_all(commands) if commands else []
        return {client_id for client_id, bucket in zip(client_ids, buckets, strict=True) if _end_told(bucket)}

    def forget_alerts(self, entries: Sequence[AlertEntry]) -> None:
        """Remove exactly these entries, in one round trip. Those of a shard that falls silent are read once more."""
        if entries:
            commands: list[Command] = [("XDEL", self._keys[entry.shard].alerts, entry.entry_id) for entry in entries]
            self._answered(commands)

    def _answered(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands; return the answers, an empty one for each that failed. Raises the first failure if all did."""
        answers = self._scripts.run_each(commands)
        failed = [answer for answer in answers if isinstance(answer, Exception)]
        if failed:
            if len(failed) == len(answers):
                raise failed[0]
            logger.warning("billing: the alerts of %d shards wait: %s", len(failed), failed[0])
        return [() if isinstance(answer, Exception) else answer for answer in answers]


def _end_told(bucket: bytes | None) -> bool:
    """Whether a bucket's marks say so, as `end_alerted` of lua/marks.lua reads them."""
    return bucket is not None and b"!" in bucket and b":0,/" not in bucket


def _entry(shard: int, entry_id: str, fields: Mapping[bytes, bytes] | Sequence[bytes]) -> AlertEntry:
    """Read an entry: RESP2 answers a flat list, RESP3 pairs."""
    if not isinstance(fields, Mapping):
        fields = dict(zip(fields[::2], fields[1::2], strict=True))
    return AlertEntry(
        shard=shard,
        entry_id=entry_id,
        server=fields[b"server"].decode(),
        client_id=fields[b"client"].decode(),
        percent=int(fields[b"percent"]),
        available=int(fields[b"available"]),
        granted=int(fields[b"granted"]),
        occurred_ms=int(fields[b"at"]),
        owed=int(fields.get(b"owed", 0)),
        overdraft_limit=int(fields.get(b"limit", 0)),
    )
