"""A bucket is rebuilt alone, or from its events; a hold that a rebuild did not know of covers nothing (L2, L5, L6)."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from uuid import UUID

import pytest

from billing.core.errors import Conflict
from billing.core.shards import shard_of
from billing.credits.rebuilding import plan_bucket
from billing.credits.values import (
    AssertOutcome,
    GrantOutcome,
    OpenOutcome,
    RebuildOutcome,
    ReleaseOutcome,
    ReserveOutcome,
    SettleOutcome,
)
from billing.credits.verbs import Verbs
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.rebuilt import SHARD, balance_of, rebuilt
from tests.contract.servers import SHARDS, Server


def test_a_bucket_that_is_missing_on_an_open_shard_is_rebuilt_alone(server: Server, buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 40))
    server.lose_bucket("acme")
    assert buckets.settle(a_settlement(run, 40)).outcome is SettleOutcome.UNKNOWN_CLIENT
    assert buckets.reserve(a_hold(a_run(task_id="t2"), 1)).outcome is ReserveOutcome.UNKNOWN_CLIENT
    holds = [(hold.run_id, hold.credits) for hold in buckets.held("acme")]
    assert rebuilt(buckets, plan_bucket(grants=[(1, 100)], spent={}, holds=holds)) is RebuildOutcome.REBUILT
    assert balance_of(buckets).held == 40
    assert not buckets.settle(a_settlement(run, 40)).late


def test_l6_a_bucket_of_which_something_is_left_is_not_opened_as_new(server: Server, buckets: Verbs) -> None:
    """Given a bucket that lost what it had available alone, when it is opened, then it is lost, until it is rebuilt.

    An empty one beside the grants of the old would refuse their ids as known, and have nothing of them.
    """
    a_client(buckets, 100)
    buckets.reserve(a_hold(a_run(), 40))
    server.lose_string("acme")
    assert buckets.open_client("acme", 2) is OpenOutcome.LOST
    assert buckets.balance("acme") is None
    assert buckets.grant("acme", 2, 5) is GrantOutcome.UNKNOWN_CLIENT
    holds = [(hold.run_id, hold.credits) for hold in buckets.held("acme")]
    assert rebuilt(buckets, plan_bucket(grants=[(1, 100)], spent={}, holds=holds)) is RebuildOutcome.REBUILT
    assert buckets.open_client("acme", 2) is OpenOutcome.ALREADY
    assert (balance_of(buckets).available, balance_of(buckets).held) == (60, 40)
    server.lose_bucket("acme")
    assert buckets.open_client("acme", 9) is OpenOutcome.OPENED, "nothing is left of it"


def test_l2_a_hold_of_an_older_epoch_covers_nothing(buckets: Verbs) -> None:
    """Given a rebuild that did not know of a hold, when it is settled or released, then nothing is conjured up."""
    a_client(buckets, 100)
    names = ("settled", "released", "asserted", "again")
    settled, released, asserted, again = (a_run(task_id=name) for name in names)
    for run in (settled, released, asserted, again):
        buckets.reserve(a_hold(run, 20))
    buckets.close(SHARD)
    rebuilt(buckets, plan_bucket(grants=[(1, 100)], spent={}, holds=[]))
    buckets.verify(SHARD, expected=None)
    assert balance_of(buckets).available == 100
    assert buckets.settle(a_settlement(settled, 20)).outcome is SettleOutcome.SETTLED
    assert buckets.release("acme", released, "first") is ReleaseOutcome.RELEASED
    assert (balance_of(buckets).available, balance_of(buckets).spent) == (80, 20)
    assert buckets.assert_hold(a_hold(asserted, 20, token="*")) is AssertOutcome.ASSERTED
    assert (balance_of(buckets).available, balance_of(buckets).held) == (60, 20)
    assert buckets.release("acme", asserted, "first") is ReleaseOutcome.RELEASED
    assert balance_of(buckets).available == 80
    assert buckets.reserve(a_hold(again, 20, token="second")).outcome is ReserveOutcome.TAKEN_OVER
    assert (balance_of(buckets).available, balance_of(buckets).held) == (60, 20)
    assert buckets.release("acme", again, "second") is ReleaseOutcome.RELEASED
    assert balance_of(buckets).available == 80


def test_l2_a_rebuild_leaves_nothing_of_the_sums_before(buckets: Verbs) -> None:
    """Given a bucket with an adjustment that PostgreSQL does not know, when it is rebuilt, then none of it is left."""
    a_client(buckets, 100)
    buckets.adjust("acme", 1, 130)
    buckets.close(SHARD)
    rebuilt(buckets, plan_bucket(grants=[(1, 100)], spent={}, holds=[]))
    buckets.verify(SHARD, expected=None)
    balance = balance_of(buckets)
    assert (balance.available, balance.voided, balance.owed) == (100, 0, 0)


def test_l10_another_clients_run_is_not_asserted(buckets: Verbs) -> None:
    """Given a run of one client, when a neighbour of its shard asserts it, then it is refused and nothing is lent."""
    neighbour = next(name for name in map(str, range(1_000)) if shard_of(name, SHARDS) == SHARD)
    a_client(buckets, 100)
    a_client(buckets, 100, client_id=neighbour)
    buckets.reserve(a_hold(run := a_run(), 20))
    with pytest.raises(Conflict, match="belongs to another client"):
        buckets.assert_hold(a_hold(run, 20, client_id=neighbour))
    assert [hold.client_id for hold in buckets.held(None, SHARD)] == ["acme"]


def test_l5_on_an_open_shard_an_asserted_hold_takes_what_there_is_and_never_refuses(buckets: Verbs) -> None:
    a_client(buckets, 10, 20)
    run = a_run()
    assert buckets.assert_hold(a_hold(run, 50, token="*")) is AssertOutcome.ASSERTED
    (hold,) = buckets.held("acme")
    assert (hold.credits, dict(hold.grants)) == (50, {1: 10, 2: 20})
    assert buckets.assert_hold(a_hold(run, 50, token="*")) is AssertOutcome.RENEWED
    assert buckets.asserts_of(SHARD) == 0
    balance_of(buckets)
    refused = buckets.reserve(a_hold(run, 50, token="second"))
    assert (refused.outcome, refused.available) == (ReserveOutcome.INSUFFICIENT, 30)
    reply = buckets.settle(a_settlement(run, 40))
    assert (reply.late, reply.debt) == (False, 10)
    assert balance_of(buckets).owed == 10
    assert buckets.assert_hold(a_hold(run, 50, token="*")) is AssertOutcome.SETTLED


@pytest.mark.parametrize("seed", range(3))
def test_l6_a_bucket_rebuilt_from_its_events_is_the_bucket_that_was_lost(
    server: Server, buckets: Verbs, seed: int
) -> None:
    """Given random work without debt, when Redis is wiped and rebuilt from the outbox's events, then balances agree."""
    chance = random.Random(seed)
    grants = [(number, chance.randint(50, 500)) for number in range(1, 9)]
    a_client(buckets, *[credits_ for _, credits_ in grants])
    running: dict[UUID, None] = {}
    for number in range(60):
        run = a_run(task_id=str(number))
        if buckets.reserve(a_hold(run, chance.randint(1, 40))).outcome is ReserveOutcome.HELD:
            running[run] = None
            ending = chance.random()
            if ending < 0.6:
                del running[run]
                buckets.settle(a_settlement(run, chance.randint(0, 20)))
            elif ending < 0.8:
                del running[run]
                buckets.release("acme", run, "first")
    before = balance_of(buckets)
    survivors = buckets.held("acme")
    assert {hold.run_id for hold in survivors} == running.keys()
    spent: dict[int, int] = defaultdict(int)
    for entry in buckets.outbox(SHARD, older_than_ms=0, count=1_000):
        for line in json.loads(entry.event)["lines"]:
            for share in line["grants"]:
                spent[share["grant"]] += share["credits"]

    server.flush()
    for hold in survivors:
        buckets.assert_hold(a_hold(hold.run_id, hold.credits, token="*"))
    plan = plan_bucket(grants=grants, spent=spent, holds=[(hold.run_id, hold.credits) for hold in survivors])
    assert rebuilt(buckets, plan) is RebuildOutcome.REBUILT
    assert buckets.verify(SHARD, expected=None)
    after = balance_of(buckets)
    assert (after.available, after.held, after.spent) == (before.available, before.held, before.spent)
    assert [grant.spent for grant in after.grants] == [grant.spent for grant in before.grants]
