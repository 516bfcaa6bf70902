"""A look at all shards says what stands in each, on a server or on a cluster's nodes, with the documented user."""

from __future__ import annotations

from contextlib import closing

import pytest
from msgspec import structs

from billing.connections.redis import connect
from billing.core.settings import Settings
from billing.credits import permissions
from billing.credits.buckets import Buckets
from billing.credits.keys import shard_keys
from billing.credits.survey import held_credits, survey
from billing.credits.values import ReserveOutcome, SettleOutcome
from tests.contract.clusters import CLIENTS, ClusterServer
from tests.contract.making import a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS, Server
from tests.contract.test_redis_users import LOGIN, add_user, nodes_of
from tests.waiting import wait_until

pytestmark = pytest.mark.raw("a look past the verbs at all shards")


@pytest.fixture
def buckets(server: Server | ClusterServer) -> Buckets:
    """Empty the server and return verified buckets."""
    server.flush()
    made = server.buckets()
    assert isinstance(made, Buckets)
    for shard, client_id in CLIENTS.items():
        made.open_client(client_id)
        made.grant(client_id, 1 + shard, 1_000)
    return made


def test_given_holds_and_events_in_every_shard_then_a_survey_has_each_in_its_own(
    server: Server | ClusterServer, buckets: Buckets
) -> None:
    """The documented user may do it, and the twin of no verb is needed: these are plain reads."""
    for number, client_id in CLIENTS.items():
        for task in range(number % 3):
            hold = a_hold(a_run(client_id, f"held-{task}"), 10 + number, client_id=client_id)
            assert buckets.reserve(hold).outcome is ReserveOutcome.HELD
        if number % 2:
            settlement = a_settlement(a_run(client_id, "done"), 1, client_id=client_id)
            assert buckets.settle(settlement).outcome is SettleOutcome.SETTLED
    buckets.close(0)
    late = structs.replace(a_hold(a_run(CLIENTS[1], "late"), 7, client_id=CLIENTS[1]), lease_seconds=0.001)
    assert buckets.reserve(late).outcome is ReserveOutcome.HELD

    for node in nodes_of(server):
        add_user(node)
    settings = Settings(
        redis_url=server.url.replace("://", f"://{LOGIN[0]}:{LOGIN[1]}@", 1), redis_timeout_seconds=60.0
    )
    with closing(connect(settings)) as client:
        wait_until(lambda: survey(client, SHARDS)[1].overdue_ms > 0, "one is overdue")
        found = {one.shard: one for one in survey(client, SHARDS)}
        credits_, whole = held_credits(client, [(one.shard, one.holds) for one in found.values()])
        some, not_all = held_credits(client, [(one.shard, one.holds) for one in found.values()], 3)
    for node in nodes_of(server):
        node.execute_command("ACL", "DELUSER", LOGIN[0])

    assert sorted(found) == list(range(SHARDS))
    for number, one in found.items():
        assert (one.holds, one.outbox, one.trusted) == (number % 3 + (number == 1), number % 2, number != 0)
        assert (one.outbox_oldest_ms > 0) <= (one.outbox > 0)
        assert (one.overdue_ms > 0) == (number == 1)
    held = 7 + sum((10 + number) * (number % 3) for number in range(SHARDS))
    assert (credits_, whole) == (held, True)
    assert 0 < some < held
    assert not not_all


def test_given_a_shard_that_was_verified_on_another_server_then_it_is_not_trusted(
    server: Server | ClusterServer, buckets: Buckets
) -> None:
    """L6: what a restart came back with is not what it was."""
    assert {one.trusted for one in survey(buckets._scripts.client, SHARDS)} == {True}
    buckets._scripts.run(("SET", shard_keys(1).server, "f" * 40))
    assert [one.shard for one in survey(buckets._scripts.client, SHARDS) if not one.trusted] == [1]


def test_given_a_run_that_ended_meanwhile_then_it_holds_nothing(buckets: Buckets, server: Server) -> None:
    shard, client_id = 0, CLIENTS[0]
    runs = [a_run(client_id, task) for task in ("one", "two")]
    for run in runs:
        buckets.reserve(a_hold(run, 10, client_id=client_id))
    client = connect(Settings(redis_url=server.url, redis_timeout_seconds=60.0))
    with closing(client):
        buckets.settle(a_settlement(runs[0], 1, client_id=client_id))
        assert held_credits(client, [(shard, 2)]) == (10, True)
        assert held_credits(client, []) == (0, True)


def test_the_reads_are_all_permitted() -> None:
    asked = {"GET", "XLEN", "XRANGE", "ZCARD", "ZRANGE", "GETRANGE", "TIME", "INFO"}
    assert asked <= {*permissions.ON_KEYS, *permissions.ON_SERVERS}
