"""Each bound of billing's Redis clients is set by us: redis-py's own allow minutes in one call (L9)."""

from __future__ import annotations

import os
import traceback
from typing import Any

import pytest
import redis
from redis.backoff import ConstantBackoff, NoBackoff
from redis.sentinel import MasterNotFoundError, SentinelConnectionPool

from billing.connections import redis as redis_connection
from billing.connections.cluster import Cluster, ClusterTopology
from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.credits.buckets import Buckets
from billing.task.runtime import Runtime

SECRET = "hunter2secret"
ONE = f"redis://worker:{SECRET}@127.0.0.1:1/3"
SENTINELS = f"redis+sentinel://worker:{SECRET}@127.0.0.1:1,127.0.0.1:2/mymaster/3?sentinel_password=other"
CLUSTER = f"redis+cluster://worker:{SECRET}@127.0.0.1:1,127.0.0.1:2"
BOUNDS: dict[str, Any] = {"redis_timeout_seconds": 0.75, "redis_retries": 2, "redis_connections_max": 7}


def options_of(pool: redis.ConnectionPool) -> dict[str, Any]:
    """Return the options with which a pool makes its connections."""
    return {name: pool.connection_kwargs.get(name) for name in ("socket_timeout", "socket_connect_timeout", "protocol")}


@pytest.mark.parametrize("url", [ONE, SENTINELS])
def test_a_server_and_a_watched_server_have_our_bounds(url: str) -> None:
    client = redis_connection.connect(Settings(redis_url=url, **BOUNDS))
    assert isinstance(client, redis.Redis)
    pool = client.connection_pool
    given = pool.connection_kwargs
    assert options_of(pool) == {"socket_timeout": 0.75, "socket_connect_timeout": 0.75, "protocol": 2}
    assert (given["username"], given["password"], given["db"]) == ("worker", SECRET, 3)
    assert (given["socket_keepalive"], given["client_name"], given["health_check_interval"]) == (True, "billing", 0)
    assert pool.max_connections == 7
    assert given["retry"].get_retries() == 2
    assert isinstance(given["retry"]._backoff, ConstantBackoff)
    assert given["retry"]._backoff.compute(1) == pytest.approx(0.05)
    client.close()


def test_each_sentinel_is_asked_once_and_as_its_own_user() -> None:
    client = redis_connection.connect(Settings(redis_url=SENTINELS, **BOUNDS))
    assert isinstance(client, redis.Redis)
    assert isinstance(client.connection_pool, SentinelConnectionPool)
    for sentinel in client.connection_pool.sentinel_manager.sentinels:
        pool = sentinel.connection_pool
        given = pool.connection_kwargs
        assert options_of(pool) == {"socket_timeout": 0.75, "socket_connect_timeout": 0.75, "protocol": 2}
        assert (given["username"], given["password"], pool.max_connections) == (None, "other", 7)
        assert given["retry"].get_retries() == 0
        assert isinstance(given["retry"]._backoff, NoBackoff)
    client.close()


def test_a_cluster_client_has_our_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    made: dict[str, Any] = {}

    def remember(_: ClusterTopology, **options: Any) -> None:
        made.update(options)

    monkeypatch.setattr(ClusterTopology, "__init__", remember)
    monkeypatch.setattr(ClusterTopology, "__del__", lambda _: None)
    client = redis_connection.connect(Settings(redis_url=CLUSTER, **BOUNDS))
    assert isinstance(client, Cluster)
    client._topology()
    assert [(node.host, node.port) for node in made.pop("startup_nodes")] == [("127.0.0.1", 1), ("127.0.0.1", 2)]
    retry = made.pop("retry")
    assert (retry.get_retries(), type(retry._backoff)) == (0, NoBackoff)
    assert made == {
        "socket_timeout": 0.75,
        "socket_connect_timeout": 0.75,
        "socket_keepalive": True,
        "max_connections": 7,
        "client_name": "billing",
        "protocol": 2,
        "username": "worker",
        "password": SECRET,
        "require_full_coverage": False,
        "reinitialize_steps": 5,
    }
    assert (client._retries, client._retry_wait_seconds) == (2, 0.05)


@pytest.mark.parametrize("url", [ONE, SENTINELS, CLUSTER])
def test_nothing_connects_before_the_first_command_and_nobody_there_is_one_line(url: str) -> None:
    runtime = Runtime(lambda: Settings(redis_url=url))
    with pytest.raises(Unreachable, match=r"^billing_redis_url: [^\n]*does not answer[^\n]*$") as caught:
        runtime.buckets.outbox_depth(0)
    assert SECRET not in str(caught.value)
    runtime.close()


@pytest.mark.parametrize("url", [ONE, SENTINELS, CLUSTER])
def test_a_forked_process_makes_a_client_of_its_own(url: str) -> None:
    runtime = Runtime(lambda: Settings(redis_url=url))

    def client() -> object:
        buckets = runtime.buckets
        assert isinstance(buckets, Buckets)
        return buckets._scripts.client

    mine = client()
    child = os.fork()
    if not child:  # pragma: no cover - ends here
        os._exit(0 if client() is not mine else 1)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert client() is mine
    runtime.close()


def test_tls_is_checked_unless_it_is_said_otherwise() -> None:
    for scheme, kind in (("rediss+sentinel://h/s", "sentinel"), ("rediss+sentinel://h/s?ssl_cert_reqs=none", "none")):
        client = redis_connection.connect(Settings(redis_url=scheme))
        assert isinstance(client, redis.Redis)
        given = client.connection_pool.connection_kwargs
        assert client.connection_pool.connection_class.__name__ == "SentinelManagedSSLConnection"
        assert given["ssl_check_hostname"] is (kind != "none")
        client.close()


def test_what_sentinels_refuse_with_shows_no_login_in_a_traceback() -> None:
    """redis-py 6 writes into that error how it asked, password and all."""
    shown = f"No master found for 'mymaster': Sentinel(password={SECRET})"
    with pytest.raises(Unreachable) as caught, redis_connection.reaching(SENTINELS):
        raise MasterNotFoundError(shown)
    assert SECRET not in "".join(traceback.format_exception_only(caught.value))
    assert caught.value.__cause__ is None
    assert caught.value.__suppress_context__
