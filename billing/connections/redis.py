"""Billing's Redis client: explicit timeouts, retries and pools, errors mapped to ours, no password in a message.

One server, the one that Sentinels name, or a cluster: the client is redis-py's own of that kind. Its defaults allow
minutes in one call. Every script is idempotent by id, so that a call which timed out may be sent again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import redis
from redis.backoff import ConstantBackoff, NoBackoff
from redis.cluster import ClusterNode
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel, SentinelConnectionPool

from billing.connections.cluster import Cluster, ClusterTopology
from billing.core.errors import Unreachable
from billing.core.redis_address import RedisAddress, read_address
from billing.core.settings import Settings, without_password

#: What the scripts speak to.
Client = redis.Redis | Cluster

_FIELD: Final = "billing_redis_url"
_RETRY_WAIT_SECONDS: Final = 0.05
#: MOVED answers after which all slots are read again; the one slot that an answer names is known at once.
_MOVED_MAX: Final = 5


def connect(settings: Settings) -> Client:
    """Return a client for `billing_redis_url`; it connects at its first command and answers in bytes."""
    address = read_address(_FIELD, settings.redis_url)
    options: dict[str, Any] = {
        "socket_timeout": settings.redis_timeout_seconds,
        "socket_connect_timeout": settings.redis_timeout_seconds,
        "socket_keepalive": True,
        "max_connections": settings.redis_connections_max,
        "client_name": "billing",
        "protocol": 2,
    }
    if address.kind == "cluster":
        return _cluster(settings, address, options)
    options |= {"health_check_interval": 0, "retry": _retry(settings)}
    if address.kind == "sentinel":
        return _watched(settings, address, options)
    client: redis.Redis = redis.Redis.from_url(settings.redis_url, **options)
    return client


def servers(client: Client) -> list[redis.Redis]:
    """Return a client for each server that takes writes now: one, but for a cluster."""
    return client.primaries() if isinstance(client, Cluster) else [client]


def shown(client: Client) -> str:
    """Return where a client's server is, as a URL without user and password."""
    if isinstance(client, Cluster):
        return client.url
    pool = client.connection_pool
    if isinstance(pool, SentinelConnectionPool):
        nodes = [sentinel.connection_pool.connection_kwargs for sentinel in pool.sentinel_manager.sentinels]
        hosts = ",".join(f"{node['host']}:{node['port']}" for node in nodes)
        return f"redis+sentinel://{hosts}/{pool.service_name}"
    options = pool.connection_kwargs
    return f"redis://{options.get('host', options.get('path', ''))}:{options.get('port', '')}"


@contextmanager
def reaching(redis_url: str) -> Iterator[None]:
    """Map redis-py's connection errors to `Unreachable`, naming the server without its password."""
    try:
        yield
    except (redis.ConnectionError, redis.TimeoutError, redis.exceptions.BusyLoadingError) as error:
        server = without_password(redis_url)
        reason = f"the server does not answer ({type(error).__name__})"
        if isinstance(error, redis.AuthenticationError):
            reason = "the server refuses the user or password"
        message = f"{_FIELD}: {server!r}: {reason}"
        # Sentinel's own refusal shows the login with which it was to be asked (redis-py 6).
        raise Unreachable(message) from (None if isinstance(error, MasterNotFoundError) else error)


def _retry(settings: Settings) -> Retry:
    return Retry(ConstantBackoff(_RETRY_WAIT_SECONDS), settings.redis_retries)


def _login(username: str | None, password: str | None) -> dict[str, Any]:
    return {"username": username, "password": password}


def _tls(address: RedisAddress) -> dict[str, Any]:
    """Return redis-py's options of TLS. Without a certificate there is no name in it to check."""
    if not address.tls:
        return {}
    named = address.tls_options.get("ssl_cert_reqs") != "none"
    return {"ssl": True, "ssl_check_hostname": named, **address.tls_options}


class _Watched(redis.Redis):
    """A client of the server that Sentinels name; with it their connections are closed too."""

    def close(self) -> None:
        super().close()
        pool: Any = self.connection_pool
        for sentinel in pool.sentinel_manager.sentinels:
            sentinel.close()


def _watched(settings: Settings, address: RedisAddress, options: dict[str, Any]) -> redis.Redis:
    """Return a client that asks the Sentinels at each new connection which server is the primary."""
    tls = _tls(address)
    sentinel_options: dict[str, Any] = {
        "socket_timeout": settings.redis_timeout_seconds,
        "socket_connect_timeout": settings.redis_timeout_seconds,
        "socket_keepalive": True,
        "max_connections": settings.redis_connections_max,
        # The next Sentinel is asked instead.
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        **_login(address.sentinel_username, address.sentinel_password),
        **tls,
    }
    sentinels: Any = Sentinel(list(address.nodes), sentinel_kwargs=sentinel_options)  # type: ignore[no-untyped-call]
    login = _login(address.username, address.password)
    client: redis.Redis = sentinels.master_for(
        address.service, redis_class=_Watched, db=address.database, **login, **tls, **options
    )
    return client


def _cluster(settings: Settings, address: RedisAddress, options: dict[str, Any]) -> Cluster:
    def make() -> ClusterTopology:
        return ClusterTopology(
            startup_nodes=[ClusterNode(*node) for node in address.nodes],  # type: ignore[no-untyped-call]
            # One shard without a server keeps no other from its work (L10).
            require_full_coverage=False,
            reinitialize_steps=_MOVED_MAX,
            # `Cluster` sends again what was lost.
            retry=Retry(NoBackoff(), 0),
            **_login(address.username, address.password),
            **_tls(address),
            **options,
        )

    return Cluster(
        make,
        url=without_password(settings.redis_url),
        retries=settings.redis_retries,
        retry_wait_seconds=_RETRY_WAIT_SECONDS,
    )
