"""Buckets on the server that Sentinels name: a promoted replica admits nothing until its shards are rebuilt (L6)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from billing.connections.redis import connect
from billing.core.errors import Recovering, Unreachable
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.rebuilding import plan_bucket
from billing.credits.values import GrantOutcome, RebuildOutcome, ReserveOutcome, SettleOutcome
from tests.contract.conftest import binary_or_skip
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.sentinels import SENTINEL_LOGIN, Watched, in_step, watched_started
from tests.contract.servers import BINARIES, SHARDS, Server, until

pytestmark = pytest.mark.slow

SHARD = shard_of("acme", SHARDS)


@pytest.fixture(params=list(BINARIES))
def watched(request: pytest.FixtureRequest) -> Iterator[Watched]:
    """Start servers and Sentinels for one test, which has them fail over."""
    with watched_started(binary_or_skip(request.param)) as running:
        yield running


@pytest.fixture
def buckets(watched: Watched) -> Iterator[Buckets]:
    """Return buckets on the primary, with a client of 100 credits."""
    client = connect(watched.settings())
    made = Server.buckets(watched.servers[0], client=client)
    a_client(made, 100)
    yield made
    client.close()


def role_of(server: Server) -> str:
    """Return what a server takes itself for; nothing while it loads, or closes its connections to change sides."""
    information: Any
    try:
        information = server.client().info("replication")
    except redis.ConnectionError:
        return ""
    return str(information["role"])


def outcome_of(buckets: Buckets, task_id: str, refused: list[str]) -> ReserveOutcome | None:
    """Return what a reserve answers, None while nobody does; then the refusal is added to a list."""
    try:
        return buckets.reserve(a_hold(a_run(task_id=task_id), 1)).outcome
    except Unreachable as error:
        refused.append(str(error))
        return None


def test_l6_after_a_failover_nothing_is_admitted_until_the_shard_is_rebuilt(watched: Watched, buckets: Buckets) -> None:
    """Given a primary that is killed with a hold on it, when its replica is promoted, then it is proven first."""
    primary, replica = watched.servers
    run = a_run(task_id="running")
    buckets.reserve(a_hold(run, 40))
    buckets.settle(a_settlement(a_run(task_id="done"), 7))
    first = buckets.server_of(SHARD)[1]
    primary.replicated()

    primary.end(signal.SIGKILL)
    watched.fail_over()
    answers: list[ReserveOutcome | None] = []
    refused: list[str] = []

    def answered() -> bool:
        answers.append(outcome_of(buckets, "new", refused))
        return answers[-1] is not None

    until(answered, "a replica is promoted")
    assert {*answers} <= {None, ReserveOutcome.RECOVERING}
    assert refused
    assert all("redis+sentinel://127.0.0.1:" in line and SENTINEL_LOGIN not in line for line in refused)
    verified, current = buckets.server_of(SHARD)
    assert verified == first != current
    with pytest.raises(Recovering):
        buckets.balance("acme")
    assert buckets.settle(a_settlement(run, 5)).outcome is SettleOutcome.RECOVERING
    assert buckets.grant("acme", 2, 5) is GrantOutcome.RECOVERING

    buckets.assert_hold(a_hold(run, 40, token="*"))
    plan = plan_bucket(grants=[(1, 100)], spent={1: 7}, holds=[(run, 40)])
    asserts = buckets.asserts_of(SHARD)
    assert buckets.rebuild("acme", 2, plan, server=current, asserts=asserts) is RebuildOutcome.REBUILT
    assert buckets.verify(SHARD, expected=current, asserts=asserts)
    balance = buckets.balance("acme")
    assert balance is not None
    assert (balance.available, balance.held, balance.spent) == (53, 40, 7)
    assert len(buckets.outbox(SHARD, older_than_ms=0, count=10)) == 1, "events outlive a failover"

    # The old primary comes back, believes itself one for a moment, and is made a replica; nobody is sent to it.
    primary.start()
    until(lambda: role_of(primary) == "slave", "the old primary is demoted")
    assert outcome_of(buckets, "later", refused) is ReserveOutcome.HELD
    assert buckets.server_of(SHARD) == (current, current)
    assert role_of(replica) == "master"


def test_l6_a_primary_that_was_only_demoted_is_left_by_its_clients(watched: Watched, buckets: Buckets) -> None:
    """Given connections to a primary that lives on as a replica, then a call finds the new one and trusts it not."""
    primary, replica = watched.servers
    refused: list[str] = []
    until(lambda: in_step(replica), "the replica is in step")
    assert outcome_of(buckets, "before", refused) is ReserveOutcome.HELD
    watched.sentinels[0].client().execute_command("SENTINEL", "FAILOVER", "mymaster")
    until(lambda: role_of(primary) == "slave", "the primary is demoted")
    answers: list[ReserveOutcome | None] = []

    def answered() -> bool:
        answers.append(outcome_of(buckets, "after", refused))
        return answers[-1] is not None

    until(answered, "the new primary is found")
    assert answers[-1] is ReserveOutcome.RECOVERING
    verified, current = buckets.server_of(SHARD)
    assert verified != current
