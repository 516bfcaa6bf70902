"""What each message of a batch comes to, and what a row means for the client's bucket (L6). Pure.

The bucket has paid an event of the client's own epoch. With E the client's epoch in PostgreSQL:

    | the event is                         | of epoch E | older, or direct | newer than E                       |
    |--------------------------------------|------------|------------------|------------------------------------|
    | new                                  | nothing    | take             | rebuild, at a later epoch than its |
    | a duplicate of the stored settlement | nothing    | nothing          | nothing                            |
    | a duplicate with another settlement  | give back  | nothing          | rebuild, at a later epoch than its |

A settlement is known by its id and its epoch: the same id that a bucket of another epoch took is another settlement.
What is to be taken, or given back once per settlement, becomes postings to the bucket of epoch E.
"""

from __future__ import annotations

import collections
import dataclasses
import enum
import uuid
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from billing.core.ids import LEGACY_MILLISECONDS, milliseconds_of
from billing.events.usage_event import DRY_RUN, UsageEvent
from billing.fulfillment.delivery import Delivered, Marker

#: A run id further ahead of the database's clock than this belongs to no month that will be there soon.
AHEAD_MAX_MILLISECONDS: Final = 31 * 86_400_000


@dataclasses.dataclass(kw_only=True, slots=True)
class Sorting:
    """The messages of a batch by kind; the order within a kind is that of the batch."""

    events: list[tuple[Delivered, UsageEvent]] = dataclasses.field(default_factory=list)
    markers: list[Marker] = dataclasses.field(default_factory=list)
    letters: list[tuple[Delivered, str]] = dataclasses.field(default_factory=list)
    #: Whose events are among the letters, and how many: of poison nobody knows whose it was.
    refused_of: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    #: Dry runs of clients that there are not: no history and no dead letter has them, their workers have counted them.
    dropped: int = 0


class Settled(NamedTuple):
    """Which settlement an event is of: its id, and the epoch of the bucket that took it (0: none did)."""

    settlement_id: str
    epoch: int


class Verdict(enum.Enum):
    """What an event means for the client's bucket."""

    NOTHING = enum.auto()
    #: The bucket has not paid what the log says.
    TAKE = enum.auto()
    #: The bucket has paid what the log does not say.
    GIVE_BACK = enum.auto()
    REBUILD = enum.auto()


#: Grant to credits: above 0 to be taken, below 0 to be given back.
Grants = dict[int, int]


@dataclasses.dataclass(kw_only=True, slots=True)
class Consequences:
    """What follows from a batch's events beyond their rows."""

    #: Shard to the reason for its rebuild.
    rebuilds: dict[int, str] = dataclasses.field(default_factory=dict)
    #: Client to the newest epoch that its events carry, where it is newer than PostgreSQL's.
    epochs: dict[str, int] = dataclasses.field(default_factory=dict)
    #: Client to what its bucket is to take.
    taken: dict[str, Grants] = dataclasses.field(default_factory=lambda: collections.defaultdict(dict))
    #: Run and settlement to the event whose charge is to be given back, unless it was before.
    returned: dict[tuple[uuid.UUID, Settled], UsageEvent] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class KnownClient:
    """What PostgreSQL says of a client."""

    shard: int
    epoch: int


def sort(batch: Sequence[Delivered]) -> Sorting:
    """Sort the messages of a batch by kind."""
    sorting = Sorting()
    for message in batch:
        decoded = message.decoded
        if isinstance(decoded, UsageEvent):
            sorting.events.append((message, decoded))
        elif isinstance(decoded, Marker):
            sorting.markers.append(decoded)
        else:
            sorting.letters.append((message, decoded.reason))
    return sorting


def refuse(sorting: Sorting, clients: Mapping[str, KnownClient], now_milliseconds: int) -> None:
    """Move the events of unknown clients, and those from the far future, to the letters.

    A dry run may be of a client that there is not. It is no charge that might be lost, and a fleet that is tried out
    before its clients are added must not fill the table, nor stop the consumer.
    """
    kept: list[tuple[Delivered, UsageEvent]] = []
    latest = now_milliseconds + AHEAD_MAX_MILLISECONDS
    for message, event in sorting.events:
        if event.client_id not in clients and event.mode == DRY_RUN:
            sorting.dropped += 1
        elif event.client_id not in clients:
            sorting.letters.append((message, f"client_id: {event.client_id!r}: is not a known client"))
            sorting.refused_of[event.client_id] += 1
        elif latest < milliseconds_of(event.run_id) < LEGACY_MILLISECONDS:
            sorting.letters.append((message, f"run_id: '{event.run_id}': is more than 31 days ahead of now"))
        else:
            kept.append((message, event))
    sorting.events = kept


def first_of_each_run(sorting: Sorting) -> dict[uuid.UUID, UsageEvent]:
    """Return the first event of each run: the others are duplicates, whether or not it is new."""
    first: dict[uuid.UUID, UsageEvent] = {}
    for _, event in sorting.events:
        first.setdefault(event.run_id, event)
    return first


def judge(settled: Settled, epoch: int, stored: Settled | None) -> Verdict:
    """Return what an event means for a client at an epoch; `stored` is what the log had of its run, None: nothing."""
    if stored is None:
        if settled.epoch == epoch:
            return Verdict.NOTHING
        return Verdict.TAKE if settled.epoch < epoch else Verdict.REBUILD
    if stored == settled or settled.epoch < epoch:
        return Verdict.NOTHING
    return Verdict.GIVE_BACK if settled.epoch == epoch else Verdict.REBUILD


def consequences(
    sorting: Sorting,
    clients: Mapping[str, KnownClient],
    inserted: Iterable[UsageEvent],
    stored: Mapping[uuid.UUID, Settled],
) -> Consequences:
    """Return what follows from the events of a batch.

    `inserted` are those that are rows now, `stored` the settlements of the runs of all others.
    """
    found = Consequences()
    new = {id(event) for event in inserted}  # by identity: the same event may be in the batch twice
    for _, event in sorting.events:
        known, settled = clients[event.client_id], Settled(event.settlement_id, event.epoch)
        before = None if id(event) in new else stored[event.run_id]
        match judge(settled, known.epoch, before):
            case Verdict.TAKE:
                add_shares(found.taken[event.client_id], event, 1)
            case Verdict.GIVE_BACK:
                found.returned[event.run_id, settled] = event
            case Verdict.REBUILD:
                found.rebuilds[known.shard] = (
                    f"run {event.run_id} was settled in epoch {event.epoch}, the client is at epoch {known.epoch}"
                )
                found.epochs[event.client_id] = max(event.epoch, found.epochs.get(event.client_id, 0))
    return found


def add_shares(grants: Grants, event: UsageEvent, sign: int) -> None:
    """Add what each grant paid of an event, or take it off."""
    for line in event.lines:
        for share in line.grants:
            grants[share.grant] = grants.get(share.grant, 0) + sign * share.credits
