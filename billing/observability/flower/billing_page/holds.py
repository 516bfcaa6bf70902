"""Reads holds, a bounded number of each shard: what a task holds, since when, and how long its lease still runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Final

import msgspec

from billing.credits.values import StoredHold
from billing.events.usage_event import decode_head
from billing.task.runtime import Runtime

#: L9: holds that one page looks at, over all shards, and those that it shows.
LOOKED_AT_MAX: Final = 6_400
SHOWN_MAX: Final = 100


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HoldLine:
    """A hold. `lease_seconds` below 0: its lease is over, and the reaper is to resolve it."""

    client_id: str
    task: str
    task_id: str
    sku: str
    credits: int
    attempt: int
    age_seconds: float
    lease_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class HoldsPage:
    """The oldest holds among those that were looked at; `more`: a shard has more than that."""

    holds: Sequence[HoldLine]
    looked_at: int
    more: bool


def read_holds(runtime: Runtime) -> HoldsPage:
    """Return the oldest holds. Of a shard with very many, only those whose lease ends first are looked at."""
    buckets = runtime.buckets
    among = max(1, LOOKED_AT_MAX // buckets.shards)
    now_ms = buckets.time_ms()
    found: list[StoredHold] = []
    more = False
    for shard in range(buckets.shards):
        held = buckets.held(None, shard, among=among)
        more = more or len(held) >= among
        found += held
    found.sort(key=lambda hold: hold.created_ms)
    return HoldsPage(holds=[hold_line(hold, now_ms) for hold in found[:SHOWN_MAX]], looked_at=len(found), more=more)


def hold_line(hold: StoredHold, now_ms: int) -> HoldLine:
    """Return a hold as a page shows it. Nothing of the task's arguments is in it."""
    try:
        head = decode_head(hold.head)
        task, task_id = head.task, head.correlation_id
    except msgspec.MsgspecError:
        task, task_id = "", ""
    return HoldLine(
        client_id=hold.client_id,
        task=task,
        task_id=task_id,
        sku=hold.sku,
        credits=hold.credits,
        attempt=hold.attempt,
        age_seconds=max(0.0, (now_ms - hold.created_ms) / 1_000),
        lease_seconds=(hold.deadline_ms - now_ms) / 1_000,
    )
