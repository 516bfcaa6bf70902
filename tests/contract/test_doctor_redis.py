"""The doctor's look at Redis: a server that forgets, a user who lacks something, a clock that is wrong."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import redis

from billing.core.settings import Settings
from billing.observability.doctor import clocks as doctor_clocks
from billing.observability.doctor import redis as doctor_redis
from billing.observability.doctor.finding import Finding, Verdict
from billing.observability.doctor.redis import examine_redis
from billing.task.runtime import Runtime
from tests.contract.clusters import PRIMARIES, ClusterServer
from tests.contract.servers import Server

pytestmark = pytest.mark.raw("a server's configuration")

OK, WARN, FAIL = Verdict.OK, Verdict.WARN, Verdict.FAIL


def found_at(url: str, **changes: Any) -> list[Finding]:
    """Return what the doctor finds."""
    return list(examine_redis(Runtime(lambda: Settings(redis_url=url, **changes))))


def of(findings: list[Finding], word: str) -> list[tuple[Verdict, str]]:
    """Return verdict and advice of the findings that have a word in them."""
    return [(finding.verdict, finding.advice) for finding in findings if word in finding.seen]


def servers_of(server: Server | ClusterServer) -> list[Any]:
    """Return a client for each server that takes writes."""
    return server.client().primaries() if isinstance(server, ClusterServer) else [server.client()]


@pytest.fixture
def configured(server: Server | ClusterServer) -> Iterator[Any]:
    """Set a server's configuration, and put it back."""
    before: list[tuple[Any, str, str]] = []

    def configure(name: str, value: str) -> None:
        for client in servers_of(server):
            before.append((client, name, client.config_get(name)[name]))
            client.config_set(name, value)

    yield configure
    for client, name, value in reversed(before):
        client.config_set(name, value)


def test_a_healthy_server_is_found_healthy(server: Server | ClusterServer, configured: Any) -> None:
    many = isinstance(server, ClusterServer)
    if many:
        configured("min-replicas-to-write", "1")
    findings = found_at(server.url)
    assert {finding.verdict for finding in findings} == {OK}, findings
    for word in ("version", "noeviction", "append-only", "may do what billing does"):
        assert len(of(findings, word)) == (PRIMARIES if many else 1), word
    assert of(findings, "is apart from broker and results") == [(OK, "")]


@pytest.mark.parametrize(
    ("setting", "word", "wanted"),
    [
        ("maxmemory-policy allkeys-lru", "allkeys-lru", (FAIL, "set maxmemory-policy noeviction")),
        ("appendonly no", "append-only file is off", (WARN, "set appendonly yes")),
    ],
)
def test_a_server_that_forgets_is_named_with_what_to_set(
    server: Server | ClusterServer, configured: Any, setting: str, word: str, wanted: tuple[Verdict, str]
) -> None:
    configured(*setting.split())
    findings = of(found_at(server.url), word)
    assert findings == [wanted] * (PRIMARIES if isinstance(server, ClusterServer) else 1)


@pytest.mark.parametrize(("share", "verdict"), [(90, WARN), (96, FAIL)])
def test_a_server_that_is_nearly_full_is_named(
    server: Server | ClusterServer, monkeypatch: pytest.MonkeyPatch, share: int, verdict: Verdict
) -> None:
    """Given memory or connections that run out, then it is told before every write is refused (no eviction)."""
    nearly = {"used_memory": share, "maxmemory": 100, "connected_clients": share, "maxclients": 100}
    info = redis.Redis.info
    monkeypatch.setattr(redis.Redis, "info", lambda *asked: {**info(*asked), **nearly})
    findings = found_at(server.url)
    count = PRIMARIES if isinstance(server, ClusterServer) else 1
    for name, setting in (("memory", "maxmemory"), ("connections", "maxclients")):
        assert of(findings, f"{share} % of its {name} are in use") == [(verdict, f"raise {setting}")] * count


def test_a_replica_fails(server: Server | ClusterServer) -> None:
    """Given an address that leads to a replica, then it takes no writes, and that is said."""
    if isinstance(server, ClusterServer):
        return  # there the client finds the primaries
    assert of(found_at(server.url), "it takes no writes") == []
    server.client().replicaof("127.0.0.1", 1)
    try:
        assert of(found_at(server.url), "is a slave: it takes no writes") == [
            (FAIL, "name its primary, or its Sentinels")
        ]
    finally:
        server.client().replicaof("NO", "ONE")


def test_replicas_without_min_replicas_to_write_are_warned_of(server: Server | ClusterServer) -> None:
    """Given replicas, then a primary that is cut off from them would go on admitting beside the promoted one (L1)."""
    findings = of(found_at(server.url), "has replicas and may be split from them")
    wanted = (WARN, "set min-replicas-to-write 1")
    assert findings == ([wanted] * PRIMARIES if isinstance(server, ClusterServer) else [])


def test_l10_a_cluster_that_one_lost_node_stops_is_warned_of(server: Server | ClusterServer, configured: Any) -> None:
    many = isinstance(server, ClusterServer)
    assert of(found_at(server.url), "stops its own slots alone") == ([(OK, "")] * PRIMARIES if many else [])
    if many:
        configured("cluster-require-full-coverage", "yes")
        wanted = (WARN, "set cluster-require-full-coverage no")
        assert of(found_at(server.url), "stops the slots of all others") == [wanted] * PRIMARIES


def test_what_the_user_lacks_is_named(server: Server | ClusterServer) -> None:
    for client in (node.client() for node in getattr(server, "nodes", [server])):
        client.execute_command("ACL", "SETUSER", "lacking", "on", ">secret", "~*", "+@all", "-zadd", "-xdel")
    try:
        url = server.url.replace("://", "://lacking:secret@", 1)
        findings = found_at(url)
        (lacking, *others) = [finding for finding in findings if "may not run" in finding.seen]
        assert lacking.verdict is FAIL
        assert lacking.seen.endswith("user 'lacking' may not run XDEL, ZADD")
        assert lacking.advice.startswith("ACL SETUSER … +xdel +zadd;")
        assert "secret" not in str(findings)
        assert len(others) == (PRIMARIES - 1 if isinstance(server, ClusterServer) else 0)
    finally:
        for client in (node.client() for node in getattr(server, "nodes", [server])):
            client.execute_command("ACL", "DELUSER", "lacking")


def test_a_user_whose_permissions_cannot_be_seen_is_warned_of(server: Server | ClusterServer) -> None:
    for client in (node.client() for node in getattr(server, "nodes", [server])):
        client.execute_command("ACL", "SETUSER", "blind", "on", ">secret", "~*", "+@all", "-acl|dryrun", "-acl|whoami")
    try:
        findings = found_at(server.url.replace("://", "://blind:secret@", 1))
        (first, *_) = [finding for finding in findings if "cannot see what its user may do" in finding.seen]
        assert (first.verdict, "+acl|dryrun" in first.advice) == (WARN, True)
    finally:
        for client in (node.client() for node in getattr(server, "nodes", [server])):
            client.execute_command("ACL", "DELUSER", "blind")


def test_a_redis_that_is_also_the_result_backend_is_warned_of(server: Server | ClusterServer) -> None:
    port = server.nodes[1].port if isinstance(server, ClusterServer) else server.port
    findings = found_at(server.url, result_url=f"redis://:hunter2@127.0.0.1:{port}/5")
    assert of(findings, "is also billing_result_url") == [(WARN, "give billing a Redis of its own")]


@pytest.mark.parametrize(
    ("told", "verdict", "word"),
    [
        ({"redis_version": "7.0.15"}, OK, "version 7.0.15"),
        ({"redis_version": "7.2.4", "valkey_version": "9.1.2"}, OK, "version 9.1.2"),
        ({"redis_version": "6.2.14"}, FAIL, "version 6.2.14"),
        ({}, FAIL, "version "),
    ],
)
def test_a_server_without_functions_is_too_old(told: dict[str, str], verdict: Verdict, word: str) -> None:
    finding = doctor_redis._version(Settings(), told)
    assert (finding.verdict, word in finding.seen) == (verdict, True)


@pytest.mark.parametrize(
    ("url", "told", "verdict"),
    [
        ("redis://h", {"connected_slaves": 0}, None),
        ("redis+sentinel://h/s", {"connected_slaves": 0}, WARN),
        ("redis+cluster://h", {}, WARN),
        ("redis://h", {"connected_slaves": 2}, WARN),
        ("redis://h", {"connected_slaves": 2, "min_slaves_good_slaves": 1}, OK),
        ("redis://h", {"connected_slaves": 2, "min_slaves_good_slaves": 0}, FAIL),
    ],
)
def test_replicas_are_asked_for_where_a_failover_is_meant(
    url: str, told: dict[str, int], verdict: Verdict | None
) -> None:
    found = list(doctor_redis._replicas(Settings(redis_url=url), told))
    assert [finding.verdict for finding in found] == ([] if verdict is None else [verdict])


def test_an_append_only_file_that_cannot_be_written_is_a_failure() -> None:
    (finding,) = doctor_redis._persistence({"aof_enabled": 1, "aof_last_write_status": "err"})
    assert (finding.verdict, finding.advice) == (FAIL, "see whether its disk is full")


class _Clock:
    """A clock that is ahead."""

    def __init__(self, ahead: timedelta) -> None:
        self._ahead = ahead

    def now(self) -> datetime:
        return datetime.now(UTC) + self._ahead

    def monotonic(self) -> float:
        return 0.0


@pytest.mark.parametrize(("seconds", "verdict"), [(0, OK), (0.5, OK), (3, WARN), (-3, WARN), (120, FAIL), (-120, FAIL)])
def test_a_clock_that_is_wrong_is_told_with_by_how_much(seconds: float, verdict: Verdict) -> None:
    """Given this machine's clock ahead or behind, then its distance is told, less what the answer took."""
    runtime = Runtime(Settings, _Clock(timedelta(seconds=seconds)))
    finding = doctor_clocks._compared(runtime, "Redis", lambda: datetime.now(UTC))
    assert (finding.verdict, finding.part) == (verdict, "clocks")
    assert finding.seen == f"Redis and this machine differ by {abs(seconds):.1f} s"
