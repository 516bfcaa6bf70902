"""Time that passes by hand: what a server has noted is made older, so that no test waits for it or loses to it."""

from __future__ import annotations

import dataclasses
import random
import re
from collections.abc import Callable
from typing import Any

from billing.core.shards import shard_of
from billing.credits.keys import shard_keys
from billing.credits.twin.memory import Memory
from billing.credits.values import Overdue
from billing.credits.verbs import Verbs
from tests.contract.servers import FUTURE_MS, LEASE_SECONDS, SHARDS

#: Between two sweeps: within the third of a lease that is no pause.
SWEEP_SECONDS = LEASE_SECONDS / 4
#: Five leases: what is not found by then is never found.
SWEEPS_MAX = 20


def pass_time(client: Any, shard: int, seconds: float) -> None:
    """Make every deadline and the last sweep of a shard so much older."""
    keys, milliseconds = shard_keys(shard), round(seconds * 1_000)
    if isinstance(client, Memory):
        kept = client.shards[shard]
        kept.leases = {run_id: deadline - milliseconds for run_id, deadline in kept.leases.items()}
        kept.swept_ms, kept.grace_ms = kept.swept_ms - milliseconds, kept.grace_ms - milliseconds
        return
    for run, deadline in client.zrange(keys.leases, 0, -1, withscores=True):
        client.zadd(keys.leases, {run: int(deadline) - milliseconds})
    for field, at in client.hgetall(keys.swept).items():
        client.hset(keys.swept, field, int(at) - milliseconds)


def end_grant(client: Any, client_id: str, grant_id: int, shards: int = SHARDS) -> int:
    """Have the time of a grant, which has an expiry, be over from this millisecond on; return which that is."""
    keys = shard_keys(shard_of(client_id, shards))
    if isinstance(client, Memory):
        return _end_grant(client, client_id, grant_id, shards)
    seconds, microseconds = client.time()
    now_ms = int(seconds) * 1_000 + int(microseconds) // 1_000
    bucket = client.get(keys.bucket + client_id).decode()
    changed, count = re.subn(rf"( {grant_id}:[\d:]+@\d+),[1-9]\d*,", rf"\g<1>,{now_ms},", bucket)
    assert count == 1, bucket
    client.set(keys.bucket + client_id, changed)
    client.zadd(keys.expiries, {f"{grant_id} {client_id}": now_ms})
    return now_ms


def _end_grant(memory: Memory, client_id: str, grant_id: int, shards: int) -> int:
    now_ms, shard = memory.now_ms(), memory.shards[shard_of(client_id, shards)]
    account = shard.books[client_id].accounts[grant_id]
    assert account.terms.expires_ms, account
    account.terms = dataclasses.replace(account.terms, expires_ms=now_ms)
    shard.endings[grant_id, client_id] = now_ms
    return now_ms


def end_grant_anywhere(client: Any, client_id: str, grant_id: int, shards: int = SHARDS) -> None:
    """Have the time of a grant be over that ends in the far future, whether it is in use or used up."""
    shard = shard_of(client_id, shards)
    if isinstance(client, Memory):
        account = client.shards[shard].books[client_id].accounts[grant_id]
        account.terms = dataclasses.replace(account.terms, expires_ms=1)
        client.shards[shard].endings[grant_id, client_id] = 1
        return
    keys = shard_keys(shard)
    bucket = (client.get(keys.bucket + client_id) or b"").decode()
    client.set(keys.bucket + client_id, re.sub(rf"( {grant_id}:[\d:]+@\d+),{FUTURE_MS},", r"\1,1,", bucket))
    terms = (client.hget(keys.grants + client_id, f"t:{grant_id}") or b"").decode()
    if terms:
        client.hset(keys.grants + client_id, f"t:{grant_id}", terms.replace(str(FUTURE_MS), "1"))
    client.zadd(keys.expiries, {f"{grant_id} {client_id}": 1})


def end_first(client: Any, client_id: str, chosen: random.Random, shards: int = SHARDS) -> str:
    """Have the time of a grant be over that ends in the far future, and have it burn first; return what was done.

    One at a time: of those that ended at once the places in the burn order would be others.
    """
    shard = shard_of(client_id, shards)
    keys = shard_keys(shard)
    if isinstance(client, Memory):
        book = client.shards[shard].books[client_id]
        found = [one for one in book.order if one.terms.expires_ms == FUTURE_MS and not one.terms.voided_ms]
        if not found or any(one.terms.expires_ms == 1 for one in book.order):
            return "one at a time" if found else "none"
        account = chosen.choice(found)
        account.terms = dataclasses.replace(account.terms, priority=0, expires_ms=1)
        book.order = [account, *(one for one in book.order if one is not account)]
        client.shards[shard].endings[account.grant_id, client_id] = 1
        return "ended"
    text = (client.get(keys.bucket + client_id) or b"").decode()
    ids = re.findall(rf" (\d+):[\d:]+@\d+,{FUTURE_MS},0", text)
    if not ids or "@0,1," in text:
        return "one at a time" if ids else "none"
    grant = chosen.choice(ids)
    entry, head = re.search(rf" {grant}:[^ ]*", text), re.search(r"^[^ ]+ [^ ]+", text)
    assert entry is not None
    assert head is not None
    ended = re.sub(rf"@\d+,{FUTURE_MS},", "@0,1,", entry[0])
    client.set(keys.bucket + client_id, head[0] + ended + text[head.end() :].replace(entry[0], "", 1))
    client.zadd(keys.expiries, {f"{grant} {client_id}": 1})
    return "ended"


def spoil(client: Any, client_id: str, old: str, new: str, shards: int = SHARDS) -> None:
    """Replace a grant's numbers in a bucket ("1:100:0:0": what it has available, held and spent)."""
    shard = shard_of(client_id, shards)
    if isinstance(client, Memory):
        grant, *had = map(int, old.split(":"))
        account = client.shards[shard].books[client_id].accounts[grant]
        assert [account.available, account.held, account.spent] == had
        _, account.available, account.held, account.spent = map(int, new.split(":"))
        return
    name = shard_keys(shard).bucket + client_id
    bucket = (client.get(name) or b"").decode()
    assert f" {old}" in bucket
    client.set(name, bucket.replace(old, new))


class Sweeping:
    """Sweeps a shard of buckets with the ordinary lease as a reaper does, a quarter of a lease between two sweeps."""

    def __init__(self, client: Any, buckets: Verbs, shard: int) -> None:
        self._client, self._buckets, self._shard = client, buckets, shard

    def until(self, condition: Callable[[Overdue], bool], what: str, *, most: int = 100) -> Overdue:
        """Sweep until a sweep has found what is wanted; return what it found."""
        for _ in range(SWEEPS_MAX):
            found = self._buckets.overdue(self._shard, most)
            if condition(found):
                return found
            pass_time(self._client, self._shard, SWEEP_SECONDS)
        message = f"not within {SWEEPS_MAX} sweeps: {what}"
        raise AssertionError(message)
