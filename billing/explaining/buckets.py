"""Reads what Redis has of one task: notes on its deliveries, its hold, its settlement, its event in the outbox.

With a client known it is one shard that is looked through, else all of them, within a bound (L9); the story says where
the bound was reached. A shard that does not answer fails the whole reading: half of it would say what is not so.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import Final

import msgspec

from billing.core.shards import shard_of
from billing.credits.tracing import Tracing
from billing.credits.values import StoredHold
from billing.credits.verbs import Verbs
from billing.events.usage_event import UsageEvent, decode_head
from billing.explaining.evidence import Buckets, Held
from billing.task.trail import Note, decode_note

#: L9: holds, and events in the outbox, that are looked at for one task.
HOLDS_LOOKED_AT: Final = 20_000
EVENTS_LOOKED_AT: Final = 20_000
#: Runs of one task that are asked for by their ids.
RUNS_MAX: Final = 20

_EVENT: Final = msgspec.json.Decoder(UsageEvent)


def shards_of(buckets: Verbs, client_id: str | None) -> list[int]:
    """Return the shard of a client; all shards where it is not known: one task id may be of several clients."""
    return list(range(buckets.shards)) if client_id is None else [shard_of(client_id, buckets.shards)]


def read_notes(
    buckets: Verbs, task_id: str, run_id: uuid.UUID | None, shards: Sequence[int], payers: AbstractSet[str]
) -> tuple[list[Note], int]:
    """Return the notes on a task's deliveries, oldest first, and how many of its clients' notes were not kept.

    `payers` are clients that are known to be its.

    What no client could be told of has its notes on the shard of the client "". Raises `Unreachable`.
    """
    needles = [_named(task_id), *([] if run_id is None else [_named(str(run_id))])]
    found: list[Note] = []
    dropped: dict[str, int] = {}
    for shard in sorted({*shards, shard_of("", buckets.shards)}):
        for data in dict.fromkeys(buckets.notes(shard)):
            if any(needle in data for needle in needles) or b'"more":' in data:
                note = decode_note(data)
                if note is None:
                    continue
                dropped[note.client_id] = dropped.get(note.client_id, 0) + note.more
                if note.task_id == task_id or (run_id is not None and note.run_id == run_id):
                    found.append(note)
    found.sort(key=lambda note: note.at)
    return found, sum(dropped.get(client_id, 0) for client_id in {*payers, *(note.client_id for note in found)})


def read_runs(
    buckets: Verbs,
    task_id: str,
    run_id: uuid.UUID | None,
    run_ids: Sequence[uuid.UUID],
    shards: Sequence[int],
    notes: tuple[Sequence[Note], int],
) -> Buckets:
    """Return all that Redis has of a task whose notes were read. Raises `Unreachable`."""
    found, dropped = notes
    now = datetime.fromtimestamp(buckets.time_ms() / 1_000, UTC)
    if not isinstance(buckets, Tracing):
        return Buckets(notes=tuple(found), notes_dropped=dropped, now=now)
    named = _named(task_id) if run_id is None else _named(str(run_id))
    limits = []
    remembered = buckets.find_runs(run_ids[:RUNS_MAX], shards)
    holds, unread = buckets.holds_with(named, shards, HOLDS_LOOKED_AT)
    if unread:
        limits.append(f"{unread:,} of the holds in Redis were not looked at (--client names the shard)")
    events, unread = buckets.events_with(named, shards, EVENTS_LOOKED_AT)
    if unread:
        limits.append(f"{unread:,} of the events in the outbox were not looked at (--client names the shard)")
    held = {hold.run_id: hold for hold in [*remembered, *holds] if isinstance(hold, StoredHold)}
    mine = [_held(hold) for hold in held.values()]
    return Buckets(
        held=tuple(one for one in mine if _is_of(one, task_id, run_id)),
        settled=tuple(each for each in remembered if not isinstance(each, StoredHold)),
        waiting=tuple(_events(events, task_id, run_id)),
        notes=tuple(found),
        notes_dropped=dropped,
        now=now,
        limits=tuple(limits),
    )


def _named(text: str) -> bytes:
    """Return a text as JSON has it, quotes included: a part of a longer id is another one."""
    return msgspec.json.encode(text)


def _held(hold: StoredHold) -> Held:
    try:
        return Held(hold=hold, head=decode_head(hold.head))
    except msgspec.MsgspecError:
        return Held(hold=hold, head=None)


def _is_of(held: Held, task_id: str, run_id: uuid.UUID | None) -> bool:
    return held.hold.run_id == run_id or held.head is None or held.head.correlation_id == task_id


def _events(found: Sequence[bytes], task_id: str, run_id: uuid.UUID | None) -> Iterable[UsageEvent]:
    for data in found:
        try:
            event = _EVENT.decode(data)
        except msgspec.MsgspecError:
            continue
        if event.correlation_id == task_id or event.run_id == run_id:
            yield event
