"""A user with the documented permissions does all that billing does, and nothing else; also over TLS."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import redis

from billing.connections.redis import Client, connect
from billing.core.errors import Fatal, Unreachable
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits import permissions
from billing.credits.buckets import Buckets
from billing.credits.granting import AdjustOutcome, TermsOutcome, VoidOutcome
from billing.credits.posting import Posting, PostOutcome
from billing.credits.rebuilding import plan_bucket
from billing.credits.terms import ClientTerms
from billing.credits.values import (
    AssertOutcome,
    ExpireOutcome,
    GrantOutcome,
    OpenOutcome,
    RebuildOutcome,
    ReleaseOutcome,
    RenewOutcome,
    ReserveOutcome,
    SettleOutcome,
)
from billing.embedded.server import free_port
from billing.observability.doctor.finding import Verdict
from billing.observability.doctor.redis import examine_redis
from billing.task.runtime import Runtime
from tests.contract.clusters import ClusterServer
from tests.contract.conftest import binary_or_skip
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.passing import Sweeping
from tests.contract.servers import SHARDS, Server, started

pytestmark = pytest.mark.raw("a server's users")

DOCUMENT = Path(__file__).parents[2] / "docs" / "redis.md"
SHARD = shard_of("acme", SHARDS)
LOGIN = ("billing", "hunter2")


def nodes_of(server: Server | ClusterServer) -> list[Any]:
    """Return a client for each process: users are not told to replicas or to other nodes."""
    return [node.client() for node in (server.nodes if isinstance(server, ClusterServer) else [server])]


def add_user(node: Any) -> None:
    """Make the documented user on a node."""
    node.execute_command("ACL", "SETUSER", LOGIN[0], "reset", "on", f">{LOGIN[1]}", *permissions.rules().split())


@pytest.fixture
def worker(server: Server | ClusterServer) -> Iterator[Client]:
    """Make the documented user on an empty server without functions, and return its client."""
    server.client().flushall()
    server.client().function_flush("SYNC")
    for node in nodes_of(server):
        add_user(node)
    url = server.url.replace("://", f"://{LOGIN[0]}:{LOGIN[1]}@", 1)
    client = connect(Settings(redis_url=url, redis_timeout_seconds=60.0))
    yield client
    client.close()
    for node in nodes_of(server):
        node.execute_command("ACL", "DELUSER", LOGIN[0])


def whole_life(buckets: Buckets, sweeping: Sweeping) -> None:
    """Call every verb, and let Redis lose and get back a shard."""
    assert buckets.open_client("acme") is OpenOutcome.OPENED
    assert buckets.grant("acme", 1, 100) is GrantOutcome.GRANTED
    assert buckets.grant("acme", 2, 50) is GrantOutcome.GRANTED
    assert buckets.set_terms("acme", ClientTerms(overdraft_limit=5)) is TermsOutcome.SET
    assert buckets.adjust("acme", 1, 10).outcome is AdjustOutcome.ADJUSTED
    run, released, overdue = (a_run(task_id=name) for name in ("run", "released", "overdue"))
    for one in (run, released):
        assert buckets.reserve(a_hold(one, 20)).outcome is ReserveOutcome.HELD
    assert buckets.reserve(a_hold(run, 30, token="second")).outcome is ReserveOutcome.TAKEN_OVER
    assert buckets.renew([("acme", run, None)]) == [RenewOutcome.RENEWED]
    assert buckets.stage("acme", run, "second", b"[1]")
    reply = buckets.settle(a_settlement(run, 25))
    assert reply.outcome is SettleOutcome.SETTLED
    assert buckets.release("acme", released, "first") is ReleaseOutcome.RELEASED

    assert buckets.reserve(a_hold(overdue, 20)).outcome is ReserveOutcome.HELD
    sweeping.until(lambda found: bool(found.held), "the hold is overdue")
    assert buckets.expire("acme", overdue) is ExpireOutcome.EXPIRED

    (entry,) = buckets.outbox(SHARD, older_than_ms=0, count=10)
    assert (buckets.outbox_depth(SHARD), buckets.oldest_outbox_ms([SHARD])[SHARD][0]) == (1, 1)
    last = a_hold(a_run(task_id="last"), 1_000)
    forget = [(SHARD, entry.entry_id)]
    assert buckets.reserve(last, forget=forget).outcome is ReserveOutcome.INSUFFICIENT
    alerts = buckets.alerts(count=10)
    assert [alert.percent for alert in alerts] == [0]
    buckets.forget_alerts(alerts)
    rows = [Posting(grant_id=1, version=1, credits=-5), Posting(grant_id=2, version=1, credits=1)]
    assert buckets.post("acme", 1, rows) is PostOutcome.POSTED
    assert buckets.void("acme", 2) is VoidOutcome.VOIDED
    assert buckets.endings_due() == buckets.endings_due([SHARD]) == [SHARD]
    buckets.forget_lapsed(buckets.lapse(SHARD, 10))
    assert buckets.audit(["acme"])["acme"].balance == buckets.balance("acme")

    buckets.close(SHARD)
    kept, logged = a_run(task_id="kept"), a_run(task_id="logged")
    for one in (kept, logged):
        assert buckets.assert_hold(a_hold(one, 20, token="*")) is AssertOutcome.ASSERTED
    buckets.mark_logged("acme", logged, "settlement")
    _, current = buckets.server_of(SHARD)
    asserts, epoch = buckets.asserts_of(SHARD), buckets.epochs(["acme"])["acme"] + 1
    plan = plan_bucket(grants=[(1, 100)], spent={1: 35}, holds=[(kept, 20)])
    assert buckets.rebuild("acme", epoch, plan, server=current, asserts=asserts) is RebuildOutcome.REBUILT
    assert buckets.verify(SHARD, expected=current, asserts=asserts)
    assert [hold.run_id for hold in buckets.held("acme")] == [kept]
    buckets.forget([(SHARD, entry.entry_id)])
    assert buckets.settle(a_settlement(kept, 20)).outcome is SettleOutcome.SETTLED
    buckets.count("addition", {"admitted:t": 1})
    assert buckets.counts() == {"admitted:t": 1}
    buckets.forget_counts()


def test_the_documented_user_does_all_that_billing_does(server: Server | ClusterServer, worker: Client) -> None:
    buckets = server.buckets(client=worker)
    whole_life(buckets, Sweeping(server.client(), buckets, SHARD))
    url = server.url.replace("://", f"://{LOGIN[0]}:{LOGIN[1]}@", 1)
    found = list(examine_redis(Runtime(lambda: Settings(redis_url=url))))
    assert Verdict.FAIL not in {finding.verdict for finding in found}, found
    assert any("user 'billing' may do what billing does" in finding.seen for finding in found)


@pytest.mark.parametrize(
    "command",
    [
        "KEYS *",
        "SCAN 0",
        "FLUSHALL",
        "FLUSHDB",
        "CONFIG GET *",
        "CONFIG SET maxmemory 1",
        "ACL LIST",
        "ACL SETUSER billing +@all",
        "FUNCTION FLUSH",
        "FUNCTION DELETE billing",
        "SHUTDOWN",
        "REPLICAOF NO ONE",
        "PUBLISH channel message",
        "EVAL return(1) 0",
        "MONITOR",
        "CLIENT KILL TYPE normal",
        "GET other",
        "SET other 1",
        "DEL other",
        "GET billing:0",
        "MGET {billing:0}:a {billing:0}other other",
        "SUBSCRIBE billing",
    ],
)
@pytest.mark.usefixtures("worker")
def test_the_documented_user_does_nothing_else(server: Server | ClusterServer, command: str) -> None:
    """Given another command, or a key of somebody else, then the server refuses, whatever billing's client asks for."""
    for node in nodes_of(server):
        port = node.connection_pool.connection_kwargs["port"]
        with (
            redis.Redis(port=port, username=LOGIN[0], password=LOGIN[1], protocol=2) as client,
            pytest.raises(redis.ResponseError, match=r"(?i)permissions|NOPERM"),
        ):
            client.execute_command(*command.split())


def test_a_function_may_not_touch_a_foreign_key_either(worker: Client) -> None:
    """Given a function of somebody's own, then it has no more rights than the user who calls it."""
    text = "#!lua name=foreign\nredis.register_function('foreign', function() return redis.call('GET', 'other') end)"
    worker.execute_command("FUNCTION", "LOAD", "REPLACE", text)
    with pytest.raises(redis.ResponseError, match=r"(?i)permission|can't access"):
        worker.execute_command("FCALL", "foreign", 1, "{billing:0}:server")


def test_a_user_who_lacks_a_command_inside_a_function_is_told_so(
    server: Server | ClusterServer, worker: Client
) -> None:
    buckets = server.buckets(client=worker)
    a_client(buckets, 100)
    for node in nodes_of(server):
        node.execute_command("ACL", "SETUSER", LOGIN[0], "-mset")
    with pytest.raises(Fatal, match="the user may not run what billing needs"):
        buckets.reserve(a_hold(a_run(), 1))


def test_the_permissions_are_the_commands_of_the_functions_and_calls_no_more_and_no_less() -> None:
    folder = resources.files("billing.credits")
    lua = "".join(path.read_text("utf-8") for path in (folder / "lua").iterdir())
    python = "".join(
        path.read_text("utf-8")
        for path in folder.iterdir()
        if path.name.endswith(".py") and path.name not in {"permissions.py", "scripts.py"}
    )
    used = {*re.findall(r"call\('([A-Z]+)'", lua), *re.findall(r'\("([A-Z]{3,})",', python)}
    assert used >= {"GET", "XDEL", "ZREM", "INFO"}
    servers = {"INFO", "TIME"}
    assert used - servers == {*permissions.ON_KEYS}
    assert servers <= used


def test_the_document_has_the_very_line() -> None:
    assert f"ACL SETUSER billing on >PASSWORD {permissions.rules()}" in DOCUMENT.read_text("utf-8")


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """Make a certificate for loopback that signs itself; return its folder."""
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(tmp_path / "key.pem"), "-out", str(tmp_path / "cert.pem")]
    command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", *files, *subject]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed, so that TLS is not checked")
    return tmp_path


def test_tls_with_user_and_password_and_a_certificate_that_is_checked(certificate: Path) -> None:
    """Given Redis 7 over TLS alone (the embedded Valkey has no TLS), then billing works; a stranger's is refused."""
    key, cert = certificate / "key.pem", certificate / "cert.pem"
    tls = f"--tls-cert-file {cert} --tls-key-file {key} --tls-ca-cert-file {cert} --tls-auth-clients no"
    with started(binary_or_skip("redis7"), *tls.split(), "--tls-port", str(port := free_port())) as server:
        add_user(server.client())
        url = f"rediss://{LOGIN[0]}:{LOGIN[1]}@127.0.0.1:{port}/0"
        client = connect(Settings(redis_url=f"{url}?ssl_ca_certs={cert}"))
        a_client(server.buckets(client=client), 100)
        client.close()
        stranger = connect(Settings(redis_url=url))
        with pytest.raises(Unreachable, match="does not answer") as refused:
            server.buckets(client=stranger, verified=False).outbox_depth(0)
        assert LOGIN[1] not in str(refused.value)
        stranger.close()
