"""Which fault strikes when, and whom, as a function of a seed. Pure.

At most `TOGETHER` faults last at once, and never two of one server. What docs/chaos.md states as a limit is
left out: what loses data of Redis keeps apart from whatever ends a worker or keeps it from RabbitMQ (`_keep_apart`).
"""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Collection, Iterator, Sequence
from typing import Final

#: Faults that last at once, at most (L9).
TOGETHER: Final = 3
#: Between two faults, on average; the first waits until there is work.
GAP_SECONDS: Final = 1.6
FIRST_SECONDS: Final = 3.0
#: How long a loss of Redis stays alone with what it could be lost together with: before it, and behind it.
ALONE_BEFORE, ALONE_BEHIND = 6.0, 18.0
#: A fault that finds no place is tried again so much later.
_STEP_SECONDS: Final = 0.5

WORKERS, CONSUMERS, BEAT = "workers", "consumers", "beat"
REDIS, RESULTS, RABBITMQ, POSTGRES, STRIPE = "Redis", "results", "RabbitMQ", "PostgreSQL", "Stripe"
EVENTS: Final = "events"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Kind:
    """A kind of fault: what it befalls, and how long it lasts, from and to, in seconds."""

    name: str
    of: str
    least: float = 0.0
    most: float = 0.0
    #: Redis has lost data, or the trust in them, afterwards.
    loses: bool = False
    #: A worker's process ends, and what it remembers with it: at once, or since RabbitMQ is away from it. Or RabbitMQ
    #: takes no events, so that a worker's memory has them for longer than usual.
    forgets: bool = False


def _kinds(of: str, *kinds: tuple[str, float, float], loses: bool = False, forgets: bool = False) -> Iterator[Kind]:
    for name, least, most in kinds:
        yield Kind(name=name, of=of, least=least, most=most, loses=loses, forgets=forgets)


_WAYS: Final = ("cut", "refused", "silent", "delayed", "half-open")


def _ways(who: str, server: str, *, forgets: bool = False) -> Iterator[Kind]:
    """Yield what befalls the connections between a kind of process and a server."""
    kinds = [(f"{who}-{server} connections {way}", *((0.0, 0.0) if way == "cut" else (1.0, 5.0))) for way in _WAYS]
    yield from _kinds(server, *kinds, forgets=forgets)


KINDS: Final[dict[str, Kind]] = {
    kind.name: kind
    for kind in (
        *_kinds(WORKERS, ("worker killed", 0, 0), ("worker's child killed", 0, 0), forgets=True),
        *_kinds(WORKERS, ("worker stopped", 1, 6), ("worker's child stopped", 1, 6)),
        *_kinds(CONSUMERS, ("consumer killed", 0, 0), ("consumer stopped", 1, 6)),
        *_kinds(BEAT, ("beat killed", 0, 0), ("beat stopped", 1, 6)),
        *_kinds(REDIS, ("Redis stopped", 1, 4), ("Redis disk full", 2, 5)),
        *_kinds(
            REDIS,
            ("Redis emptied", 0, 0),
            ("Redis killed", 0, 2),
            ("Redis killed, its tail lost", 0, 2),
            ("Redis bucket lost", 0, 0),
            loses=True,
        ),
        *_kinds(RESULTS, ("results stopped", 1, 4), ("results killed", 0, 2)),
        *_kinds(RABBITMQ, ("RabbitMQ out of memory", 2, 6), ("RabbitMQ out of disk", 2, 6), forgets=True),
        *_kinds(RABBITMQ, ("RabbitMQ stopped", 1, 5), ("RabbitMQ killed", 0, 2), forgets=True),
        *_kinds(RABBITMQ, ("RabbitMQ restarted", 0, 2), forgets=True),
        *_kinds(POSTGRES, ("PostgreSQL restarted", 0, 2), ("PostgreSQL restarted at once", 0, 2)),
        *_kinds(POSTGRES, ("PostgreSQL killed", 0, 2), ("PostgreSQL backends ended", 0, 0)),
        *_kinds(POSTGRES, ("PostgreSQL stopped", 1, 5), ("PostgreSQL disk full", 2, 5)),
        *_kinds(STRIPE, ("Stripe stopped", 1, 6), ("Stripe killed", 0, 3), ("Stripe fails", 3, 8)),
        *_kinds(EVENTS, ("events published again", 0, 0)),
        *_ways("worker", REDIS),
        *_ways("worker", RESULTS),
        *_ways("worker", RABBITMQ, forgets=True),
        *_ways("worker", POSTGRES),
        *_ways("consumer", REDIS),
        *_ways("consumer", RABBITMQ),
        *_ways("consumer", POSTGRES),
        *_ways("consumer", STRIPE),
        *_ways("beat", RABBITMQ),
        *_ways("client", RABBITMQ),
    )
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Injection:
    """A fault that strikes `at` so many seconds, and lasts. `seed`: of what it chooses itself, a victim above all."""

    at: float
    seconds: float
    kind: Kind
    seed: int

    @property
    def end(self) -> float:
        """When it ends."""
        return self.at + self.seconds


def plan(seed: int, seconds: float, kinds: Collection[str] = KINDS.keys()) -> list[Injection]:
    """Return the faults of a storm, in the order in which they strike: all kinds are dealt before any comes again.

    What befalls processes and servers is dealt twice as often as what befalls the connections of one kind of process.
    """
    chance = random.Random(seed)
    planned: list[Injection] = []
    deck: list[Kind] = []
    at = FIRST_SECONDS
    while at < seconds:
        if not deck:
            deck = [kind for name in sorted(kinds) for kind in [KINDS[name]] * (1 if "connections" in name else 2)]
            chance.shuffle(deck)
        number = chance.randrange(2**32)
        near = [other for other in planned if other.end + ALONE_BEFORE + ALONE_BEHIND > at]
        for kind in deck:
            found = Injection(at=at, seconds=chance.uniform(kind.least, kind.most), kind=kind, seed=number)
            if found.end <= seconds and _has_place(found, near):
                deck.remove(kind)
                planned.append(found)
                at += chance.expovariate(1 / GAP_SECONDS)
                break
        else:
            at += _STEP_SECONDS
    return planned


def _has_place(found: Injection, planned: Sequence[Injection]) -> bool:
    lasting = [other for other in planned if other.end + _STEP_SECONDS >= found.at]
    if len(lasting) >= TOGETHER or any(other.kind.of == found.kind.of for other in lasting):
        return False
    return not any(_keep_apart(other, found) for other in planned)


def _keep_apart(earlier: Injection, later: Injection) -> bool:
    """Whether the two together would be a stated limit: who forgets and what is lost are the only two who knew."""
    if later.kind.loses:
        return (earlier.kind.forgets or earlier.kind.loses) and later.at < earlier.end + ALONE_BEFORE
    return earlier.kind.loses and later.kind.forgets and later.at < earlier.end + ALONE_BEHIND
