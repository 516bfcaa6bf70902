"""Calls of billing's own client, through a door that cuts some of them; what an untrusted shard answers is looked at.

A call that came to nothing returns None: its connection was cut, and so was its retry's, or the server is down, or its
shard recovers. What it asked for may have been done by then, in vain or not.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, MutableSequence
from enum import Enum
from typing import Final, ParamSpec, TypeVar

import redis

from billing.connections.redis import connect
from billing.core.errors import Retryable
from billing.core.settings import Settings
from billing.credits.buckets import Buckets
from tests.contract.faulty.door import Cut, Door
from tests.contract.faulty.values import OPTIONS, SHARDS, Breach

P = ParamSpec("P")
T = TypeVar("T")

#: Of so many cuts one is followed by a while without connections.
_AWAY_EVERY: Final = 5
#: How often a call is sent that must have its answer, before that is a breach (L9).
TRIES_MAX: Final = 5_000


class Calls:
    """One process' calls. `trusted` has, for each shard, 1 from just before it is verified until its server is dead.

    Of `cut_every` calls one has its connection cut.
    """

    def __init__(self, port: int, chance: random.Random, trusted: MutableSequence[int], cut_every: int) -> None:
        self._cut_every = cut_every
        self.door = Door(port)
        self.chance = chance
        self.counts: Counter[str] = Counter()
        self._trusted = trusted
        self._client = connect(Settings(redis_url=f"redis://127.0.0.1:{self.door.port}/0", redis_timeout_seconds=60.0))
        self.buckets = Buckets(self._client, shards=SHARDS, **OPTIONS)
        #: Whether the last call may have been carried out more than once.
        self.cut = False
        #: How many calls a trusted shard has answered.
        self.answered = 0

    def close(self) -> None:
        """End all connections."""
        self._client.close()
        self.door.close()

    def call(self, shard: int, verb: str, act: Callable[[], T]) -> T | None:
        """Call a verb, perhaps in vain. Raises `Breach` where a shard that nobody trusts does anything."""
        trusted = self._trusted[shard]
        before = self.door.cuts.total()
        self._cut_by_chance()
        try:
            reply = act()
        except (Retryable, redis.RedisError):
            self.cut = True
            self.counts["unanswered"] += 1
            return None
        self.cut = self.door.cuts.total() > before
        if _is_recovering(reply):
            self.counts["refused while recovering"] += 1
            return None
        if not trusted and not self._trusted[shard]:
            message = f"L6: {verb} on shard {shard}, which recovers, answered {reply}"
            raise Breach(message)
        self.answered += 1
        self.counts[f"{verb} {_outcome(reply)}"] += 1
        return reply

    def surely(self, act: Callable[P, T], *arguments: P.args, **keywords: P.kwargs) -> T:
        """Call until there is an answer. Raises `Breach` if there never is."""
        for _ in range(TRIES_MAX):
            self._cut_by_chance()
            try:
                return act(*arguments, **keywords)
            except Retryable:
                self.counts["unanswered"] += 1
        message = f"L9: no answer to {TRIES_MAX} calls of {act}"
        raise Breach(message)

    def once_in(self, times: int) -> bool:
        """Return True once in so many times."""
        return self.chance.randrange(times) == 0

    def _cut_by_chance(self) -> None:
        if self.once_in(self._cut_every):
            self.door.cut(self.chance.choice(tuple(Cut)), away=self.once_in(_AWAY_EVERY))
        else:
            self.door.cut(None)


def _outcome(reply: object) -> str:
    found = reply[0] if isinstance(reply, list) and reply else reply
    found = getattr(found, "outcome", found)
    late = " late" if getattr(reply, "late", False) else ""
    debt = " debt" if getattr(reply, "debt", 0) else ""
    return f"{found.name if isinstance(found, Enum) else found}{late}{debt}"


def _is_recovering(reply: object) -> bool:
    found = reply[0] if isinstance(reply, list) and reply else reply
    return getattr(getattr(found, "outcome", found), "name", "") == "RECOVERING"
