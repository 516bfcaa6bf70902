"""Release, renew, stage, expire: no hold is an orphan, and no live run loses its hold (L4, L5)."""

from __future__ import annotations

from uuid import UUID

import pytest

from billing.core.shards import shard_of
from billing.credits.values import (
    ExpireOutcome,
    GrantBalance,
    Overdue,
    ReleaseOutcome,
    RenewOutcome,
    ReserveOutcome,
    SettleOutcome,
)
from billing.credits.verbs import Verbs
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS, Server, until

SHARD = shard_of("acme", SHARDS)
LEASE_SECONDS = 0.3


@pytest.fixture
def brief(server: Server, buckets: Verbs) -> Verbs:
    """Return buckets with a short lease, with a client and a first sweep done (which begins the grace)."""
    brief = server.buckets(lease_seconds=LEASE_SECONDS)
    a_client(buckets, 100)
    return brief


def swept(buckets: Verbs) -> list[UUID]:
    """Sweep, as often as a reaper does, until the pause is over."""
    found: list[Overdue] = []

    def due() -> bool:
        found.append(buckets.overdue(SHARD, 100))
        return not found[-1].paused and bool(found[-1].held)

    until(due, "a hold is overdue")
    return [hold.run_id for hold in found[-1].held]


def test_l2_release_gives_back_to_exactly_the_grants_that_lent(buckets: Verbs) -> None:
    a_client(buckets, 30, 20)
    run = a_run()
    buckets.reserve(a_hold(run, 40))
    assert buckets.release("acme", run, "first") is ReleaseOutcome.RELEASED
    assert buckets.release("acme", run, "first") is ReleaseOutcome.NOTHING
    balance = buckets.balance("acme")
    assert balance is not None
    assert balance.grants == (
        GrantBalance(grant_id=1, granted=30, available=30),
        GrantBalance(grant_id=2, granted=20, available=20),
    )


def test_l4_a_stale_attempt_cannot_free_a_live_ones_hold(buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 40))
    buckets.reserve(a_hold(run, 40, token="second"))
    assert buckets.release("acme", run, "first") is ReleaseOutcome.STALE
    assert not buckets.stage("acme", run, "first", b"[1]")
    assert buckets.stage("acme", run, "second", b"[2]", head=b"{2")
    (hold,) = buckets.held("acme")
    assert (hold.token, hold.head, hold.lines, hold.credits) == ("second", b"{2", b"[2]", 40)
    assert buckets.release("acme", run, "second") is ReleaseOutcome.RELEASED


def test_l4_a_released_run_may_be_held_again(buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 40))
    buckets.release("acme", run, "first")
    assert buckets.reserve(a_hold(run, 50, token="second")).outcome is ReserveOutcome.HELD


def test_l5_renew_moves_deadlines_forward_and_never_back(buckets: Verbs) -> None:
    a_client(buckets, 100)
    held, gone, settled = (a_run(task_id=name) for name in ("held", "gone", "settled"))
    buckets.reserve(a_hold(held, 10))
    buckets.settle(a_settlement(settled, 10))
    assert buckets.renew([("acme", held, 600.0), ("acme", gone, None), ("acme", settled, None)]) == [
        RenewOutcome.RENEWED,
        RenewOutcome.GONE,
        RenewOutcome.SETTLED,
    ]
    (far,) = buckets.held("acme")
    assert far.deadline_ms - far.created_ms >= 600_000
    buckets.renew([("acme", held, 5.0)])
    (still,) = buckets.held("acme")
    assert still.deadline_ms == far.deadline_ms
    assert buckets.renew([]) == []


def test_l5_a_dead_workers_hold_expires_after_its_lease_and_not_before(brief: Verbs) -> None:
    run = a_run()
    brief.overdue(SHARD, 1)
    brief.reserve(a_hold(run, 40))
    assert brief.expire("acme", run) is ExpireOutcome.NOT_DUE
    assert swept(brief) == [run]
    assert brief.expire("acme", run) is ExpireOutcome.EXPIRED
    assert brief.expire("acme", run) is ExpireOutcome.NOTHING
    balance = brief.balance("acme")
    assert balance is not None
    assert (balance.available, balance.held) == (100, 0)
    assert brief.settle(a_settlement(run, 40)).late


def test_l5_a_renewed_hold_does_not_expire_though_it_was_named_overdue(brief: Verbs) -> None:
    run = a_run()
    brief.reserve(a_hold(run, 40))
    assert swept(brief) == [run]
    brief.renew([("acme", run, 60.0)])
    assert brief.expire("acme", run) is ExpireOutcome.NOT_DUE


@pytest.mark.raw("sets the time of the last sweep back")
def test_l5_after_a_pause_in_sweeping_nothing_expires_for_one_lease(brief: Verbs, server: Server) -> None:
    run = a_run()
    brief.reserve(a_hold(run, 40))
    assert swept(brief) == [run]
    client = server.client()
    key = f"{{billing:{SHARD}}}:swept"
    at = int(client.hget(key, "at") or 0)
    client.hset(key, "at", at - 1_000)
    assert brief.expire("acme", run) is ExpireOutcome.NOT_DUE, "a reaper that was frozen with its list takes nothing"
    assert brief.overdue(SHARD, 10).paused
    assert brief.expire("acme", run) is ExpireOutcome.NOT_DUE
    assert swept(brief) == [run]
    grace = int(client.hget(key, "grace") or 0)
    assert int(client.hget(key, "at") or 0) >= grace >= at + int(LEASE_SECONDS * 1_000)
    assert brief.expire("acme", run) is ExpireOutcome.EXPIRED


def test_l9_a_sweep_names_at_most_so_many_oldest_first(brief: Verbs) -> None:
    runs = [a_run(task_id=str(number)) for number in range(5)]
    for run in runs:
        brief.reserve(a_hold(run, 1))
    swept(brief)
    until(lambda: len(brief.overdue(SHARD, 100).held) == 5, "all are overdue")
    held = brief.overdue(SHARD, 3).held
    assert [hold.run_id for hold in held] == sorted(runs, key=lambda run: _deadline(brief, run))[:3]


def _deadline(buckets: Verbs, run: UUID) -> tuple[int, str]:
    return next((hold.deadline_ms, run.hex) for hold in buckets.held("acme") if hold.run_id == run)


@pytest.mark.raw("counts the members of a key")
def test_a_settled_run_leaves_no_lease_behind(brief: Verbs, server: Server) -> None:
    run = a_run()
    brief.reserve(a_hold(run, 40))
    assert brief.settle(a_settlement(run, 40)).outcome is SettleOutcome.SETTLED
    assert brief.expire("acme", run) is ExpireOutcome.NOTHING
    assert server.client().zcard(f"{{billing:{SHARD}}}:leases") == 0


@pytest.mark.raw("leases that billing did not write")
def test_l5_leases_without_a_hold_do_not_keep_a_real_one_from_expiring(brief: Verbs, server: Server) -> None:
    """Given more dangling leases than a sweep takes, when it sweeps, then they are gone and the hold is named."""
    client, leases = server.client(), f"{{billing:{SHARD}}}:leases"
    settled, wrong, run = (a_run(task_id=name) for name in ("settled", "wrong", "real"))
    brief.reserve(a_hold(run, 40))
    brief.settle(a_settlement(settled, 1))
    client.sadd(f"{{billing:{SHARD}}}:run:{wrong.hex}", "not a hold")
    dangling = [settled, wrong, *(a_run(task_id=f"gone-{number}") for number in range(3))]
    client.zadd(leases, {other.hex: 1 for other in dangling})

    until(lambda: bool(brief.overdue(SHARD, 2).held), "the hold is overdue")

    assert [hold.run_id for hold in brief.overdue(SHARD, 2).held] == [run]
    assert client.zrange(leases, 0, -1) == [run.hex.encode()]


@pytest.mark.raw("leases that billing did not write")
def test_l9_one_sweep_removes_a_bounded_number_of_dangling_leases(brief: Verbs, server: Server) -> None:
    client, leases = server.client(), f"{{billing:{SHARD}}}:leases"
    client.zadd(leases, {a_run(task_id=str(number)).hex: 1 for number in range(45)})
    until(lambda: not brief.overdue(SHARD, 2).paused, "the grace is over")
    assert client.zcard(leases) == 25
    assert brief.overdue(SHARD, 100).held == []
    assert client.zcard(leases) == 0


@pytest.mark.raw("a record that billing did not write")
def test_l5_a_record_that_cannot_be_read_lets_the_others_have_their_turn(
    brief: Verbs, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    client = server.client()
    broken, run = a_run(task_id="broken"), a_run(task_id="real")
    brief.reserve(a_hold(broken, 1))
    until(lambda: brief.overdue(SHARD, 1).held != [], "the first is overdue")
    client.set(f"{{billing:{SHARD}}}:run:{broken.hex}", "held\nno more than this")
    brief.reserve(a_hold(run, 1))
    until(lambda: [hold.run_id for hold in brief.overdue(SHARD, 1).held] == [run], "the second is overdue")
    assert broken.hex in caplog.text
