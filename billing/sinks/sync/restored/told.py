"""The latest calls to the sink, kept in Redis: outside of the database whose increments they were of.

An idempotency key that is here and not in `stripe_attempt` says that PostgreSQL is of an earlier moment than the call.
A Redis that is emptied knows no calls, and so accuses nobody; whose sums were compared since is kept beside them.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final

import redis

from billing.connections import redis as connection
from billing.core.errors import Unreachable
from billing.core.settings import without_password

#: Calls that are kept (L9): more than are in flight at once, so that one which ended out of order is among them.
CALLS_MAX: Final = 256


class Told:
    """What one kind of books was told. Raises `Unreachable`, also where the server answers and refuses."""

    def __init__(self, client: connection.Client, redis_url: str, books: str) -> None:
        self._client, self._url = client, redis_url
        self._calls, self._compared = f"{{billing:told}}:calls:{books}", f"{{billing:told}}:compared:{books}"

    def note(self, idempotency_key: str, at: datetime) -> None:
        """Keep a call that is about to be made."""
        self._do("ZADD", self._calls, str(at.timestamp()), idempotency_key)

    def calls(self) -> dict[str, datetime]:
        """Return the latest calls, by their keys, and drop those before them."""
        found = self._do("ZRANGE", self._calls, "0", "-1", "WITHSCORES")
        pairs = list(zip(found[::2], found[1::2], strict=True) if found and _flat(found) else found)
        named = [call for member, score in pairs if (call := _call_of(member, score)) is not None]
        kept = dict(named[-CALLS_MAX:])
        # With what is too old goes what nobody noted, which would keep its place for ever (L9).
        over = [member for member, score in pairs if (call := _call_of(member, score)) is None or call[0] not in kept]
        if over:
            with suppress(Unreachable):  # what could not be dropped is dropped by the next one
                self._do("ZREM", self._calls, *over)
        return kept

    def compared(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        """Return the customers and meters whose sums were compared, and were found to be known here."""
        if not pairs:
            return set()
        found = self._do("HMGET", self._compared, *(_member(pair) for pair in pairs))
        return {pair for pair, value in zip(pairs, found, strict=True) if value is not None}

    def note_compared(self, pair: tuple[str, str]) -> None:
        """Keep that a customer's and meter's sum holds nothing that is not known here, or not accepted."""
        self._do("HSET", self._compared, _member(pair), "1")

    def forget(self) -> None:
        """Begin anew: with other books."""
        for key in (self._compared, self._calls):
            self._do("DEL", key)

    def _do(self, *command: str) -> Any:
        try:
            with connection.reaching(self._url):
                return self._client.execute_command(*command)
        except redis.RedisError as error:
            # Full, read-only, or a user without a right: no reason to stop the report, which is compared instead.
            message = f"billing_redis_url: {without_password(self._url)!r}: refuses {command[0]}: {error}"
            raise Unreachable(message) from error


def _flat(found: Sequence[Any]) -> bool:
    """Whether a client gave members and scores in one row, as a server does, and not in pairs."""
    return isinstance(found[0], bytes)


def _call_of(member: bytes, score: bytes | float) -> tuple[str, datetime] | None:
    """Return a call's key and time; None for what `note` cannot have written, which accuses nobody."""
    try:
        key, at = member.decode(), datetime.fromtimestamp(float(score), UTC)
    except (ValueError, OverflowError, OSError):
        return None
    return (key, at) if key and "\0" not in key else None


def _member(pair: tuple[str, str]) -> str:
    return "/".join(pair)
