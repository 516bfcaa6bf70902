"""A shard is trusted only on the server it was verified on; a lost one comes back from the log (L1, L6)."""

from __future__ import annotations

import json
import random
import signal
from collections import defaultdict
from uuid import UUID

import pytest

from billing.core.errors import Recovering
from billing.core.shards import shard_of
from billing.credits.plan import BucketPlan
from billing.credits.rebuilding import plan_bucket
from billing.credits.values import (
    AssertOutcome,
    Balance,
    ExpireOutcome,
    GrantOutcome,
    OpenOutcome,
    RebuildOutcome,
    ReleaseOutcome,
    RenewOutcome,
    ReserveOutcome,
    SettleOutcome,
)
from billing.credits.verbs import Verbs
from tests.contract.laws import assert_laws
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS, Server

SHARD = shard_of("acme", SHARDS)


def contents(server: Server) -> dict[object, object]:
    """Return everything that the server holds."""
    return server.contents()


def balance_of(buckets: Verbs) -> Balance:
    """Read a balance and hold it to the laws."""
    balance = buckets.balance("acme")
    assert balance is not None
    assert_laws(balance)
    return balance


def rebuilt(buckets: Verbs, plan: BucketPlan, *, epoch: int = 2) -> RebuildOutcome:
    """Write a plan for the server that answers now."""
    _, current = buckets.server_of(SHARD)
    return buckets.rebuild("acme", epoch, plan, server=current, asserts=buckets.asserts_of(SHARD))


def assert_recovering(server: Server, buckets: Verbs, run: UUID) -> None:
    """Every verb answers `RECOVERING`, and changes nothing."""
    before = contents(server)
    settlement = a_settlement(run, 5)
    assert buckets.reserve(a_hold(run, 1)).outcome is ReserveOutcome.RECOVERING
    assert buckets.reserve(a_hold(a_run(task_id="new"), 1)).outcome is ReserveOutcome.RECOVERING
    assert buckets.settle(settlement).outcome is SettleOutcome.RECOVERING
    assert buckets.release("acme", run, "first") is ReleaseOutcome.RECOVERING
    assert buckets.renew([("acme", run, 600.0)]) == [RenewOutcome.RECOVERING]
    assert not buckets.stage("acme", run, "first", b"[1]")
    assert buckets.expire("acme", run) is ExpireOutcome.RECOVERING
    assert buckets.grant("acme", 99, 5) is GrantOutcome.RECOVERING
    assert buckets.open_client("globex" if shard_of("globex", SHARDS) == SHARD else "acme") is OpenOutcome.RECOVERING
    assert buckets.overdue(SHARD, 10).paused
    with pytest.raises(Recovering):
        buckets.balance("acme")
    assert contents(server) == before


def test_l6_the_buckets_of_a_shard_are_written_in_turn_until_one_is_refused(buckets: Verbs) -> None:
    """Given a bucket of a newer epoch among them, then the outcome is its, and those before it are written."""
    names = [name for name in map(str, range(400)) if shard_of(name, SHARDS) == SHARD][:3]
    first, newer, last = names
    for name in names:
        a_client(buckets, 5, client_id=name)
    buckets.close(SHARD)
    _, server = buckets.server_of(SHARD)
    plan = plan_bucket(grants=[(1, 100)], spent={1: 5}, holds=[])
    assert buckets.rebuild_all([(newer, 3, plan)], server=server, asserts=0) is RebuildOutcome.REBUILT
    plans = [(name, 2, plan) for name in (first, newer, last)]
    assert buckets.rebuild_all(plans, server=server, asserts=0) is RebuildOutcome.STALE
    assert buckets.epochs([first, newer]) == {first: 2, newer: 3}
    plans = [(name, 4, plan) for name in (first, newer, last)]
    assert buckets.rebuild_all(plans, server=server, asserts=0) is RebuildOutcome.REBUILT
    assert buckets.epochs(names) == dict.fromkeys(names, 4)
    assert buckets.rebuild_all([], server=server, asserts=0) is RebuildOutcome.REBUILT


def test_l1_nothing_is_admitted_or_charged_on_a_shard_that_nobody_verified(server: Server, buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 10))
    stored, current = buckets.server_of(SHARD)
    assert stored == current
    buckets.close(SHARD)
    assert buckets.server_of(SHARD) == (None, current)
    assert_recovering(server, buckets, run)
    assert buckets.verify(SHARD, expected=current)
    assert buckets.reserve(a_hold(run, 10)).outcome is ReserveOutcome.TAKEN_OVER


def test_l6_after_flushall_nothing_is_admitted_until_the_shard_is_rebuilt(server: Server, buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 10))
    server.flush()
    assert buckets.server_of(SHARD)[0] is None
    assert_recovering(server, buckets, run)


def test_l6_a_server_that_was_killed_and_came_back_is_not_trusted(own_server: Server) -> None:
    """Given SIGKILL and a restart, with or without its last writes, when it is asked, then it waits for a rebuild."""
    buckets = own_server.buckets()
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 10))
    first, _ = buckets.server_of(SHARD)
    own_server.end(signal.SIGKILL)
    own_server.start()
    stored, current = buckets.server_of(SHARD)
    assert stored in {first, None}
    assert current != first
    assert_recovering(own_server, buckets, run)
    assert not buckets.verify(SHARD, expected=first)

    buckets.assert_hold(a_hold(run, 10, token="*"))
    assert rebuilt(buckets, plan_bucket(grants=[(1, 100)], spent={}, holds=[(run, 10)])) is RebuildOutcome.REBUILT
    assert buckets.verify(SHARD, expected=current)
    assert (balance_of(buckets).available, balance_of(buckets).held) == (90, 10)


def test_l6_verify_refuses_a_server_that_was_replaced_since_the_buckets_were_written(buckets: Verbs) -> None:
    buckets.close(SHARD)
    assert not buckets.verify(SHARD, expected="another")
    assert buckets.server_of(SHARD)[0] is None


def test_l6_the_holds_of_running_attempts_come_back(server: Server, buckets: Verbs) -> None:
    """Given a wiped server, when workers assert their holds and the log is read, then the same values stand."""
    a_client(buckets, 30, 100)
    running = [a_run(task_id="one"), a_run(task_id="two")]
    for run in running:
        buckets.reserve(a_hold(run, 40))
    buckets.settle(a_settlement(a_run(task_id="done"), 5))
    before = balance_of(buckets)
    server.flush()

    for run in running:
        assert buckets.assert_hold(a_hold(run, 40, token="*")) is AssertOutcome.ASSERTED
    assert buckets.assert_hold(a_hold(running[0], 40, token="*")) is AssertOutcome.RENEWED
    assert buckets.asserts_of(SHARD) == 2
    survivors = buckets.held(None, SHARD)
    assert [(hold.token, dict(hold.grants), hold.epoch) for hold in survivors] == [("*", {}, 0)] * 2
    holds = [(hold.run_id, hold.credits) for hold in survivors]
    plan = plan_bucket(grants=[(1, 30), (2, 100)], spent={2: 5}, holds=holds)
    assert rebuilt(buckets, plan) is RebuildOutcome.REBUILT
    assert buckets.reserve(a_hold(running[0], 40)).outcome is ReserveOutcome.RECOVERING
    _, current = buckets.server_of(SHARD)
    assert buckets.verify(SHARD, expected=current, asserts=2)

    after = balance_of(buckets)
    assert (after.epoch, after.grants, after.order) == (2, before.grants, before.order)
    reply = buckets.settle(a_settlement(running[0], 40))
    assert (reply.outcome, reply.late) == (SettleOutcome.SETTLED, False)
    assert json.loads(reply.event or b"")["epoch"] == 2
    assert buckets.release("acme", running[1], "whoever") is ReleaseOutcome.RELEASED
    assert balance_of(buckets).held == 0


def test_l6_one_more_hold_makes_a_plan_stale(server: Server, buckets: Verbs) -> None:
    a_client(buckets, 100)
    server.flush()
    _, current = buckets.server_of(SHARD)
    plan = plan_bucket(grants=[(1, 100)], spent={}, holds=[])
    buckets.assert_hold(a_hold(a_run(), 40, token="*"))
    assert buckets.rebuild("acme", 2, plan, server=current, asserts=0) is RebuildOutcome.MOVED
    assert buckets.rebuild("acme", 2, plan, server="another", asserts=1) is RebuildOutcome.MOVED
    assert rebuilt(buckets, plan) is RebuildOutcome.REBUILT
    assert rebuilt(buckets, plan) is RebuildOutcome.REBUILT, "while recovering, the same plan may be written again"
    buckets.assert_hold(a_hold(a_run(task_id="another"), 40, token="*"))
    assert not buckets.verify(SHARD, expected=current, asserts=1)
    assert buckets.server_of(SHARD)[0] is None


def test_l6_an_old_rebuilder_that_wakes_up_changes_nothing(buckets: Verbs) -> None:
    a_client(buckets, 100)
    plan = plan_bucket(grants=[(1, 50)], spent={}, holds=[])
    before = balance_of(buckets)
    assert rebuilt(buckets, plan, epoch=2) is RebuildOutcome.OPEN
    assert rebuilt(buckets, plan, epoch=1) is RebuildOutcome.ALREADY
    buckets.close(SHARD)
    assert rebuilt(buckets, plan, epoch=3) is RebuildOutcome.REBUILT
    assert rebuilt(buckets, plan, epoch=2) is RebuildOutcome.STALE
    buckets.verify(SHARD, expected=None)
    assert rebuilt(buckets, plan, epoch=2) is RebuildOutcome.STALE
    assert (before.epoch, balance_of(buckets).epoch, balance_of(buckets).granted) == (1, 3, 50)


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
    settled, released, asserted = (a_run(task_id=name) for name in ("settled", "released", "asserted"))
    for run in (settled, released, asserted):
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
