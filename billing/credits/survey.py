"""What stands in all shards at once: outboxes, holds, and which shards recover. Plain reads, in few round trips.

It writes nothing and needs no function: a server that has lost them is surveyed like any other. Reads are not atomic
over shards; each number is that of one moment of its own shard.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Final

from billing.connections.redis import Client
from billing.credits.keys import ShardKeys, shard_keys
from billing.credits.records import read_shares
from billing.credits.scripts import Command, Scripts, slices
from billing.credits.verification import run_id_of

#: Holds whose credits are added up by one look (L9): about 0.2 s of a server's time, a slice at a time.
HOLDS_MAX: Final = 100_000
#: Commands of one round trip: no other caller waits behind more than a millisecond of them.
_SLICE: Final = 1_000
#: A hold's record begins with `held` and what it was lent, which is some grants of some digits.
_LENT_LENGTH_MAX: Final = 400


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ShardSurvey:
    """One shard. Ages are by the clock of its own server. `overdue_ms`: of the hold that is longest past its lease."""

    shard: int
    trusted: bool
    outbox: int
    outbox_oldest_ms: int
    holds: int
    overdue_ms: int


def survey(client: Client, shards: int) -> list[ShardSurvey]:
    """Look at every shard, in one round trip for each thousand commands. Raises `Unreachable`, `Fatal`."""
    scripts = Scripts(client)
    nodes: dict[str, list[tuple[int, ShardKeys]]] = {}
    for shard in range(shards):
        keys = shard_keys(shard)
        nodes.setdefault(scripts.node_of(keys.server), []).append((shard, keys))
    found: list[ShardSurvey] = []
    for part in _parts(nodes):
        commands = [command for of_node in part for command in _looks(of_node)]
        answers = iter(scripts.run_all(commands))
        for of_node in part:
            found += _read(of_node, answers)
    return sorted(found, key=lambda one: one.shard)


def held_credits(client: Client, counts: Sequence[tuple[int, int]], holds_max: int = HOLDS_MAX) -> tuple[int, bool]:
    """Return what the holds of shards were lent, and whether all were read; `counts`: (shard, how many holds)."""
    scripts = Scripts(client)
    left = holds_max
    ranges: list[tuple[int, Command]] = []
    for shard, count in counts:
        taken = min(count, left)
        if taken:
            ranges.append((shard, ("ZRANGE", shard_keys(shard).leases, 0, taken - 1)))
        left -= taken
    ids = _run(scripts, [command for _, command in ranges])
    keys = [shard_keys(shard).run + run.decode() for (shard, _), runs in zip(ranges, ids, strict=True) for run in runs]
    records = _run(scripts, [("GETRANGE", key, 0, _LENT_LENGTH_MAX - 1) for key in keys])
    lent = [_lent(record) for record in records]
    whole = sum(count for _, count in counts) <= holds_max and None not in lent
    return sum(credits_ for credits_ in lent if credits_ is not None), whole


def _run(scripts: Scripts, commands: Sequence[Command]) -> list[Any]:
    return [answer for part in slices(commands, _SLICE) for answer in scripts.run_all(part)]


def _parts(nodes: dict[str, list[tuple[int, ShardKeys]]]) -> Iterator[list[list[tuple[int, ShardKeys]]]]:
    """Yield what goes in one round trip: some shards of every node, so that all nodes work at the same time."""
    each = max(1, _SLICE // 5 // max(1, len(nodes)))
    chunks = [[own[start : start + each] for start in range(0, len(own), each)] for own in nodes.values()]
    for row in itertools.zip_longest(*chunks):
        yield [chunk for chunk in row if chunk]


def _looks(of_node: Sequence[tuple[int, ShardKeys]]) -> list[Command]:
    """Return what is asked of shards of one node: a command without a key goes where the one before it went."""
    commands: list[Command] = [("GET", of_node[0][1].server), ("TIME",), ("INFO", "server")]
    for _, keys in of_node:
        commands += [
            ("GET", keys.server),
            ("XLEN", keys.outbox),
            ("XRANGE", keys.outbox, "-", "+", "COUNT", 1),
            ("ZCARD", keys.leases),
            ("ZRANGE", keys.leases, 0, 0, "WITHSCORES"),
        ]
    return commands


def _read(of_node: Sequence[tuple[int, ShardKeys]], answers: Iterator[Any]) -> Iterator[ShardSurvey]:
    _, time, information = next(answers), next(answers), next(answers)
    now_ms = int(time[0]) * 1_000 + int(time[1]) // 1_000
    current = run_id_of(information)
    for shard, _ in of_node:
        server, outbox, first, holds, due = itertools.islice(answers, 5)
        yield ShardSurvey(
            shard=shard,
            trusted=server is not None and server.decode() == current,
            outbox=int(outbox),
            outbox_oldest_ms=max(0, now_ms - int(first[0][0].split(b"-")[0])) if first else 0,
            holds=int(holds),
            overdue_ms=max(0, now_ms - int(float(due[1]))) if due else 0,
        )


def _lent(record: bytes) -> int | None:
    """Return the credits of a hold's record; 0: it ended since; None: it names more grants than are read."""
    word, _, rest = record.partition(b"\n")
    if word != b"held":
        return 0
    shares, newline, _ = rest.partition(b"\n")
    return sum(read_shares(shares).values()) if newline else None
