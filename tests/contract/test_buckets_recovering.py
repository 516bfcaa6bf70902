"""A shard is trusted only on the server it was verified on; a lost one comes back from the log (L1, L6)."""

from __future__ import annotations

import json
import signal
from uuid import UUID

import pytest

from billing.core.errors import Recovering
from billing.core.shards import shard_of
from billing.credits.rebuilding import plan_bucket
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
from billing.credits.verbs import Verbs
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.rebuilt import SHARD, balance_of, rebuilt
from tests.contract.servers import SHARDS, Server


def contents(server: Server) -> dict[object, object]:
    """Return everything that the server holds."""
    return server.contents()


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
