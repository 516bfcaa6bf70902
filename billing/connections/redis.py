"""Billing's Redis client: explicit timeouts and retries, errors mapped to ours, no password in a message.

redis-py's defaults allow 55 seconds in one call. Every script is idempotent by id, so that a call which timed out
may be sent again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import redis
from redis.backoff import ConstantBackoff
from redis.retry import Retry

from billing.core.errors import Unreachable
from billing.core.settings import Settings, without_password

_RETRY_WAIT_SECONDS: Final = 0.05


def connect(settings: Settings) -> redis.Redis:
    """Return a client for `billing_redis_url`; it connects at its first command and answers in bytes."""
    return redis.Redis.from_url(
        settings.redis_url,
        socket_timeout=settings.redis_timeout_seconds,
        socket_connect_timeout=settings.redis_timeout_seconds,
        socket_keepalive=True,
        health_check_interval=0,
        retry=Retry(ConstantBackoff(_RETRY_WAIT_SECONDS), settings.redis_retries),
        client_name="billing",
        protocol=2,
    )


@contextmanager
def reaching(redis_url: str) -> Iterator[None]:
    """Map redis-py's connection errors to `Unreachable`, naming the server without its password."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError) as error:
        server = without_password(redis_url)
        reason = type(error).__name__
        message = f"billing_redis_url: {server!r}: the server does not answer ({reason})"
        raise Unreachable(message) from error
