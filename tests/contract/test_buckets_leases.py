"""Release, renew, stage, expire: no hold is an orphan, and no live run loses its hold (L4, L5)."""

from __future__ import annotations

from uuid import UUID

import pytest

from billing.core.shards import shard_of
from billing.credits.keys import shard_keys
from billing.credits.values import (
    ExpireOutcome,
    GrantBalance,
    ReleaseOutcome,
    RenewOutcome,
    ReserveOutcome,
    SettleOutcome,
)
from billing.credits.verbs import Verbs
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.passing import Sweeping, pass_time
from tests.contract.servers import LEASE_SECONDS, SHARDS, Server

SHARD = shard_of("acme", SHARDS)
NEIGHBOUR = next(name for name in map(str, range(1_000)) if shard_of(name, SHARDS) == SHARD)


@pytest.fixture
def leased(buckets: Verbs) -> Verbs:
    """Return buckets with a client."""
    a_client(buckets, 100)
    return buckets


@pytest.fixture
def sweeping(server: Server, leased: Verbs) -> Sweeping:
    """Return what sweeps the client's shard while time passes by hand."""
    return Sweeping(server.client(), leased, SHARD)


def due(sweeping: Sweeping) -> list[UUID]:
    """Sweep until a hold is overdue; return those that are."""
    return [hold.run_id for hold in sweeping.until(lambda found: bool(found.held), "a hold is overdue").held]


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


def test_l2_another_clients_run_is_an_unknown_one_though_it_is_on_the_same_shard(
    server: Server, buckets: Verbs
) -> None:
    """Given a run that is held or settled, when it is released or expired under another client's id, then nothing is.

    What came back would be credits that the other bucket never lent.
    """
    a_client(buckets, 100)
    a_client(buckets, 100, client_id=NEIGHBOUR)
    held, settled = a_run(), a_run(task_id="settled")
    for run in (held, settled):
        buckets.reserve(a_hold(run, 40))
    buckets.settle(a_settlement(settled, 40))
    server.end_lease("acme", held)
    for run in (held, settled):
        assert buckets.release(NEIGHBOUR, run, "first") is ReleaseOutcome.NOTHING
        assert buckets.expire(NEIGHBOUR, run) is ExpireOutcome.NOTHING
    theirs, ours = buckets.balance(NEIGHBOUR), buckets.balance("acme")
    assert theirs is not None
    assert ours is not None
    assert (theirs.available, theirs.held, ours.available, ours.held) == (100, 0, 20, 40)
    assert [hold.run_id for hold in buckets.held("acme")] == [held], "it has its deadline still"
    assert buckets.expire("acme", held) is ExpireOutcome.EXPIRED
    assert buckets.release("acme", settled, "first") is ReleaseOutcome.SETTLED


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
    buckets.reserve(a_hold(held, 10, token="second"))
    (still,) = buckets.held("acme")
    assert (still.deadline_ms, still.token) == (far.deadline_ms, "second")
    assert buckets.renew([]) == []


def test_l5_a_dead_workers_hold_expires_after_its_lease_and_not_before(
    server: Server, leased: Verbs, sweeping: Sweeping
) -> None:
    run = a_run()
    leased.overdue(SHARD, 1)
    leased.reserve(a_hold(run, 40))
    pass_time(server.client(), SHARD, LEASE_SECONDS / 4)
    assert leased.expire("acme", run) is ExpireOutcome.NOT_DUE
    assert due(sweeping) == [run]
    assert leased.expire("acme", run) is ExpireOutcome.EXPIRED
    assert leased.expire("acme", run) is ExpireOutcome.NOTHING
    balance = leased.balance("acme")
    assert balance is not None
    assert (balance.available, balance.held) == (100, 0)
    assert leased.settle(a_settlement(run, 40)).late


def test_l5_a_renewed_hold_does_not_expire_though_it_was_named_overdue(leased: Verbs, sweeping: Sweeping) -> None:
    run = a_run()
    leased.reserve(a_hold(run, 40))
    assert due(sweeping) == [run]
    leased.renew([("acme", run, 60.0)])
    assert leased.expire("acme", run) is ExpireOutcome.NOT_DUE


@pytest.mark.raw("reads the time of the last sweep")
def test_l5_after_a_pause_in_sweeping_nothing_expires_for_one_lease(
    server: Server, leased: Verbs, sweeping: Sweeping
) -> None:
    run = a_run()
    leased.reserve(a_hold(run, 40))
    assert due(sweeping) == [run]
    client = server.client()
    pass_time(client, SHARD, LEASE_SECONDS / 2)
    assert leased.expire("acme", run) is ExpireOutcome.NOT_DUE, "a reaper that was frozen with its list takes nothing"
    assert leased.overdue(SHARD, 10).paused
    at, grace = (int(client.hget(shard_keys(SHARD).swept, field) or 0) for field in ("at", "grace"))
    assert grace == at + int(LEASE_SECONDS * 1_000)
    assert leased.expire("acme", run) is ExpireOutcome.NOT_DUE
    assert due(sweeping) == [run]
    at, grace = (int(client.hget(shard_keys(SHARD).swept, field) or 0) for field in ("at", "grace"))
    assert at >= grace
    assert leased.expire("acme", run) is ExpireOutcome.EXPIRED


def test_l9_a_sweep_names_at_most_so_many_oldest_first(leased: Verbs, sweeping: Sweeping) -> None:
    runs = [a_run(task_id=str(number)) for number in range(5)]
    for run in runs:
        leased.reserve(a_hold(run, 1))
    sweeping.until(lambda found: len(found.held) == 5, "all are overdue")
    held = leased.overdue(SHARD, 3).held
    assert [hold.run_id for hold in held] == sorted(runs, key=lambda run: _deadline(leased, run))[:3]


def _deadline(buckets: Verbs, run: UUID) -> tuple[int, str]:
    return next((hold.deadline_ms, run.hex) for hold in buckets.held("acme") if hold.run_id == run)


@pytest.mark.raw("counts the members of a key")
def test_a_settled_run_leaves_no_lease_behind(leased: Verbs, server: Server) -> None:
    run = a_run()
    leased.reserve(a_hold(run, 40))
    assert leased.settle(a_settlement(run, 40)).outcome is SettleOutcome.SETTLED
    assert server.client().zcard(f"{{billing:{SHARD}}}:leases") == 0
    assert leased.expire("acme", run) is ExpireOutcome.NOTHING


@pytest.mark.raw("leases that billing did not write")
def test_l5_leases_without_a_hold_do_not_keep_a_real_one_from_expiring(
    leased: Verbs, server: Server, sweeping: Sweeping
) -> None:
    """Given more dangling leases than a sweep takes, when it sweeps, then they are gone and the hold is named."""
    client, leases = server.client(), f"{{billing:{SHARD}}}:leases"
    settled, wrong, run = (a_run(task_id=name) for name in ("settled", "wrong", "real"))
    leased.reserve(a_hold(run, 40))
    leased.settle(a_settlement(settled, 1))
    client.sadd(f"{{billing:{SHARD}}}:run:{wrong.hex}", "not a hold")
    dangling = [settled, wrong, *(a_run(task_id=f"gone-{number}") for number in range(3))]
    client.zadd(leases, {other.hex: 1 for other in dangling})
    sweeping.until(lambda found: bool(found.held), "the hold is overdue", most=2)
    assert [hold.run_id for hold in leased.overdue(SHARD, 2).held] == [run]
    assert client.zrange(leases, 0, -1) == [run.hex.encode()]


@pytest.mark.raw("leases that billing did not write")
def test_l9_one_sweep_removes_a_bounded_number_of_dangling_leases(
    leased: Verbs, server: Server, sweeping: Sweeping
) -> None:
    client, leases = server.client(), f"{{billing:{SHARD}}}:leases"
    client.zadd(leases, {a_run(task_id=str(number)).hex: 1 for number in range(45)})
    sweeping.until(lambda found: not found.paused, "the grace is over", most=2)
    assert client.zcard(leases) == 25
    assert leased.overdue(SHARD, 100).held == []
    assert client.zcard(leases) == 0


@pytest.mark.raw("a record that billing did not write")
def test_l5_a_record_that_cannot_be_read_lets_the_others_have_their_turn(
    leased: Verbs, server: Server, sweeping: Sweeping, caplog: pytest.LogCaptureFixture
) -> None:
    broken, run = a_run(task_id="broken"), a_run(task_id="real")
    leased.reserve(a_hold(broken, 1))
    assert due(sweeping) == [broken]
    server.client().set(f"{{billing:{SHARD}}}:run:{broken.hex}", "held\nno more than this")
    leased.reserve(a_hold(run, 1))
    sweeping.until(lambda found: [hold.run_id for hold in found.held] == [run], "the second is overdue", most=1)
    assert broken.hex in caplog.text
