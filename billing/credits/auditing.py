"""Reads many buckets at once, each with what its holds were lent: one round trip for all shards, atomic per shard.

It writes nothing and refuses nothing. What cannot be read is an outcome: a shard that recovers, a client without a
bucket, a bucket that billing did not write.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from billing.core.shards import shard_of
from billing.credits.calling import Calling
from billing.credits.keys import ShardKeys, shard_keys
from billing.credits.records import read_balance, read_shares
from billing.credits.scripts import Command
from billing.credits.values import Balance

#: Holds of a shard that one step looks at: about 20 ms of the server's time (L9).
HOLDS_MAX: Final = 10_000
#: Clients of a shard that one step reads (L9).
_CLIENTS_MAX: Final = 1_000
#: Bytes of an unreadable bucket that are shown.
_SHOWN_MAX: Final = 200
#: What lua/audit.lua says in place of a bucket whose hash is of another type.
_GRANTS_OF_ANOTHER_TYPE: Final = b"grants of another type"


@dataclass(frozen=True, kw_only=True, slots=True)
class BucketReading:
    """A client's bucket at one moment of Redis' clock.

    `balance` is None where there is no bucket, and where there is one that cannot be read: then `unreadable` is what
    the key `unreadable_key` has. `lent` is what the client's live holds were lent, per grant; None where the shard has
    too many to look at.
    """

    client_id: str
    shard: int
    at_ms: int
    recovering: bool = False
    balance: Balance | None = None
    unreadable: str = ""
    unreadable_key: str = ""
    lent: Mapping[int, int] | None = None
    holds: int = 0
    oldest_deadline_ms: int = 0

    @property
    def corruption(self) -> tuple[str, str] | None:
        """The key that billing cannot have written, and what it has; None: there is no such key."""
        if self.unreadable:
            return self.unreadable_key, self.unreadable
        if self.balance is None or self.lent is None:
            return None
        lacking = sorted(self.lent.keys() - {0, *self.balance.order})
        if not lacking:
            return None
        key = shard_keys(self.shard).bucket + self.client_id
        return key, f"lacks grants that lent to its holds: {', '.join(map(str, lacking[:10]))}"


class Auditing(Calling):
    """The buckets, read by the slice."""

    def audit(self, client_ids: Sequence[str], *, holds_max: int = HOLDS_MAX) -> dict[str, BucketReading]:
        """Return the bucket of each client. Commands go in one pipeline, and stay near `client_ids` in size.

        `holds_max` 0 looks at no holds, so that a page of many balances takes next to nothing of the server's time.
        """
        by_shard: dict[int, list[str]] = collections.defaultdict(list)
        for client_id in client_ids:
            by_shard[shard_of(client_id, self.shards)].append(client_id)
        parts = [
            (shard, ids[start : start + _CLIENTS_MAX])
            for shard, ids in sorted(by_shard.items())
            for start in range(0, len(ids), _CLIENTS_MAX)
        ]
        answers = self._scripts.run_all([self._audit(shard, ids, holds_max) for shard, ids in parts]) if parts else []
        found: dict[str, BucketReading] = {}
        for (shard, ids), answer in zip(parts, answers, strict=True):
            found.update(_read(shard, ids, answer))
        return found

    def balances(self, client_ids: Sequence[str]) -> dict[str, Balance]:
        """Return the balance of each client that has a bucket on a trusted shard."""
        readings = self.audit(client_ids, holds_max=0).items()
        return {client_id: reading.balance for client_id, reading in readings if reading.balance is not None}

    def oldest_outbox_ms(self, shards: Sequence[int]) -> dict[int, tuple[int, int]]:
        """Return of each shard how many events wait in its outbox, and the age in ms of the oldest one."""
        if not shards:
            return {}
        commands: list[Command] = [("TIME",)]
        for shard in shards:
            commands += [
                ("XLEN", self._keys[shard].outbox),
                ("XRANGE", self._keys[shard].outbox, "-", "+", "COUNT", 1),
            ]
        time, *answers = self._scripts.run_all(commands)
        now_ms = int(time[0]) * 1_000 + int(time[1]) // 1_000
        waiting = {}
        for position, shard in enumerate(shards):
            depth, first = answers[2 * position], answers[2 * position + 1]
            age_ms = max(0, now_ms - int(first[0][0].split(b"-")[0])) if first else 0
            waiting[shard] = (int(depth), age_ms)
        return waiting

    def outboxes_since_ms(self, shards: Sequence[int]) -> dict[int, int | None]:
        """Return of each shard when the oldest entry of its outbox was written, by its own clock; None: it is empty."""
        answers = (
            self._scripts.run_all([("XRANGE", self._keys[shard].outbox, "-", "+", "COUNT", 1) for shard in shards])
            if shards
            else []
        )
        return {
            shard: int(first[0][0].split(b"-")[0]) if first else None
            for shard, first in zip(shards, answers, strict=True)
        }

    def _audit(self, shard: int, client_ids: Sequence[str], holds_max: int = HOLDS_MAX) -> Command:
        keys = self._keys[shard]
        audit_keys = (keys.server, keys.leases, keys.run, keys.bucket, keys.grants)
        return self._command("audit", audit_keys, holds_max, *client_ids)


def _read(shard: int, client_ids: Sequence[str], answer: Sequence[Any]) -> dict[str, BucketReading]:
    if answer[0] == b"RECOVERING":
        return {
            client_id: BucketReading(client_id=client_id, shard=shard, at_ms=0, recovering=True)
            for client_id in client_ids
        }
    _, at_ms, complete, _, *entries = answer
    found, keys = {}, shard_keys(shard)
    for client_id, (bucket, holds, deadline, lent, *flat) in zip(client_ids, entries, strict=True):
        balance, unreadable, key = _balance(client_id, bucket, flat, int(at_ms), keys)
        found[client_id] = BucketReading(
            client_id=client_id,
            shard=shard,
            at_ms=int(at_ms),
            balance=balance,
            unreadable=unreadable,
            unreadable_key=key,
            lent=read_shares(lent) if complete else None,
            holds=holds,
            oldest_deadline_ms=int(float(deadline)),
        )
    return found


def _balance(
    client_id: str, bucket: bytes | None, flat: Sequence[bytes], at_ms: int, keys: ShardKeys
) -> tuple[Balance | None, str, str]:
    """Return the balance; where it cannot be read, what is there instead, and the key that has it."""
    if bucket is None:
        return None, "", ""
    if bucket == _GRANTS_OF_ANOTHER_TYPE:
        return None, bucket.decode(), keys.grants + client_id
    try:
        return read_balance(client_id, bucket, flat, at_ms), "", ""
    except (ValueError, KeyError):
        pass
    try:
        read_balance(client_id, bucket, (), at_ms)
    except (ValueError, KeyError):
        return None, repr(bucket[:_SHOWN_MAX]), keys.bucket + client_id
    fields = dict(zip(flat[::2], flat[1::2], strict=True))
    return None, repr(fields)[:_SHOWN_MAX], keys.grants + client_id
