"""What a reading asks of Redis: outboxes, holds, which shards are not trusted; apart from it, what the holds were lent.

On a connection of its own with short bounds, so that a server that hangs is known to within seconds.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from billing.connections import redis as redis_connection
from billing.core.settings import Settings
from billing.credits.survey import ShardSurvey, held_credits, survey
from billing.observability.overview.values import Outbox

#: How long one answer of Redis is waited for (L9).
_TIMEOUT_SECONDS_MAX: Final = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RedisState:
    """All shards, added up. `untrusted`: shards without a verified server, also those that nobody uses."""

    outbox: Outbox
    holds: int
    overdue_seconds: float
    untrusted: frozenset[int]


class RedisSide:
    """Asks Redis; the connections are made when they are used, and kept."""

    def __init__(self, settings: Settings) -> None:
        bound = min(settings.redis_timeout_seconds, _TIMEOUT_SECONDS_MAX)
        self._shards = settings.shards
        self._client = redis_connection.connect(
            dataclasses.replace(settings, redis_timeout_seconds=bound, redis_retries=1)
        )

    def read(self) -> RedisState:
        """Look at all shards."""
        return _added_up(survey(self._client, self._shards))

    def read_held(self) -> tuple[int, bool]:
        """Return the credits that are held, and whether all holds were read."""
        found = survey(self._client, self._shards)
        return held_credits(self._client, [(one.shard, one.holds) for one in found])

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _added_up(found: list[ShardSurvey]) -> RedisState:
    return RedisState(
        outbox=Outbox(
            events=sum(one.outbox for one in found),
            oldest_seconds=max((one.outbox_oldest_ms for one in found), default=0) / 1_000,
        ),
        holds=sum(one.holds for one in found),
        overdue_seconds=max((one.overdue_ms for one in found), default=0) / 1_000,
        untrusted=frozenset(one.shard for one in found if not one.trusted),
    )
