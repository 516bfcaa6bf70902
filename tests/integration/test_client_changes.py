"""Voids, adjustments, states and overdraft, from the ledger to the bucket and back; what a client had (L2, L6, L7)."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta
from typing import Literal

import pytest
import redis
import sqlalchemy

import billing
from billing import admin
from billing.core.credits import CREDITS_MAX
from billing.core.errors import Conflict, InvalidValue, Recovering, Rejected, UnknownClient, Unreachable
from billing.core.shards import shard_of
from billing.credits.terms import ClientState
from billing.credits.values import ReserveOutcome
from billing.ledger import rebuilds
from billing.ledger.grants import GrantRow
from billing.recovery.changes import CHANGES_MAX, apply_changes
from billing.recovery.grants import apply_grants
from billing.recovery.lapsing import lapse_grants
from billing.schema.tables import client_change
from billing.task.refusals import refusal
from tests.integration.consuming import until_rows
from tests.integration.granting import balance_of, end, entries, grant, rebuild
from tests.integration.recovering import SHARDS, Business, a_hold
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

FUTURE = datetime(2100, 1, 1, tzinfo=UTC)


def test_given_a_void_when_repeated_then_it_is_the_same_and_its_end_is_entered_and_survives_a_loss(
    business: Business,
) -> None:
    row = grant(business, 100, "k")
    business.hold("acme", 40, "a")
    first, applied = admin.void(business.settings, row.grant_id)
    assert applied
    assert admin.void(business.settings, row.grant_id) == (
        dataclasses.replace(first, applied_at=_applied(business)),
        True,
    )
    with pytest.raises(InvalidValue, match=r"^grant_id: \d+: is voided already, under another key"):
        admin.void(business.settings, row.grant_id, key="another")
    with pytest.raises(InvalidValue, match=r"^grant_id: 99: is not a known grant"):
        admin.void(business.settings, 99)
    assert (balance_of(business).voided, balance_of(business).held) == (60, 40)
    before = balance_of(business)
    with business.consuming():
        business.close_shard("acme")
        assert business.rebuilder.step() == 1
        assert balance_of(business).grants == before.grants
        business.settle("acme", 15, "a")
        assert lapse_grants(business.runtime) == 1
        assert entries(business) == [("grant", 100), ("void", -85)]
        until_rows(business.settings, 1)
        rebuild(business)
    assert (balance_of(business).voided, balance_of(business).spent, balance_of(business).available) == (85, 15, 0)


def _applied(business: Business) -> datetime | None:
    with business.runtime.engine.connect() as connection:
        at: datetime | None = connection.execute(sqlalchemy.text("SELECT applied_at FROM client_change")).scalar_one()
        return at


def test_given_adjustments_when_made_then_each_counts_once_and_comes_back_after_a_loss(business: Business) -> None:
    grant(business, 30, "k")
    for _ in range(2):
        row, applied = admin.adjust_credits(business.settings, "acme", -50, key="ticket", reason="granted twice")
        assert applied
    with pytest.raises(Conflict, match=r"^key: 'ticket': was used for an adjustment by -50, so it cannot be .* by -51"):
        admin.adjust_credits(business.settings, "acme", -51, key="ticket")
    with pytest.raises(
        Conflict, match=r"^key: 'ticket': was used for an adjustment by -50, so it cannot be a grant of 5"
    ):
        admin.adjust_credits(business.settings, "acme", 5, key="ticket")
    assert entries(business) == [("grant", 30), ("adjust", -30), ("adjust", -20)]
    assert (balance_of(business).owed, balance_of(business).voided) == (20, 50)
    assert isinstance(admin.adjust_credits(business.settings, "acme", 25, key="back")[0], GrantRow)
    before = balance_of(business)
    assert (before.owed, before.available) == (0, 5)
    with business.consuming():
        rebuild(business)
    after = balance_of(business)
    assert (after.grants, after.owed, after.voided, after.available) == (before.grants, 0, 50, 5)
    assert row.client_id == "acme"


def test_given_changes_that_no_bucket_took_when_the_loop_runs_or_a_rebuild_then_they_are_applied_once(
    business: Business,
) -> None:
    """A change whose maker died between ledger and bucket, or whose shard recovers, waits and is not lost."""
    voided = grant(business, 100, "k")
    grant(business, 100, "l")
    business.close_shard("acme")
    settings = business.settings
    assert not admin.void(settings, voided.grant_id)[1]
    assert not admin.adjust_credits(settings, "acme", -30, key="minus")[1]
    assert not admin.set_client_state(settings, "acme", "suspended")[1]
    assert not admin.set_overdraft(settings, "acme", 70)[1]
    assert apply_changes(business.runtime) == 0
    business.runtime.buckets.verify(shard_of("acme", SHARDS), expected=None)
    assert apply_changes(business.runtime) == 4
    assert apply_changes(business.runtime) == 0
    before = balance_of(business)
    assert (before.available, before.voided, before.terms.state, before.terms.overdraft_limit) == (
        70,
        130,
        ClientState.SUSPENDED,
        70,
    )
    business.close_shard("acme")
    assert not admin.adjust_credits(settings, "acme", -100, key="more")[1]
    with business.consuming():
        assert business.rebuilder.step() == 1
    assert apply_changes(business.runtime) == 0, "the rebuild has applied it"
    assert entries(business)[-2:] == [("adjust", -70), ("adjust", -30)]
    after = balance_of(business)
    assert (after.owed, after.voided, after.terms) == (30, 230, before.terms)


def test_given_a_closed_client_when_granted_then_it_is_refused_and_what_was_granted_before_goes_in(
    business: Business,
) -> None:
    business.close_shard("acme")
    assert not admin.grant(business.settings, "acme", 10, key="before")[1]
    admin.set_client_state(business.settings, "acme", "closed")
    business.runtime.buckets.verify(shard_of("acme", SHARDS), expected=None)
    assert apply_changes(business.runtime) == 1
    with pytest.raises(InvalidValue, match=r"^client_id: 'acme': is closed: it is granted nothing"):
        admin.grant(business.settings, "acme", 10)
    assert apply_grants(business.runtime) == 1
    assert balance_of(business).available == 10
    admin.set_client_state(business.settings, "acme", "active")
    assert grant(business, 5, "after").applied_at is None
    assert balance_of(business).available == 15


def test_given_who_died_between_bucket_and_ledger_when_anybody_applies_the_change_then_it_is_entered_once(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L7: the bucket remembers what an adjustment took from which grant, and says the same again."""
    grant(business, 30, "k")

    def dies(*_: object) -> None:
        raise Unreachable("database: away")

    with monkeypatch.context() as patched:
        patched.setattr("billing.recovery.changes.enter_adjustment", dies)
        assert not admin.adjust_credits(business.settings, "acme", -50, key="minus")[1]
        assert (balance_of(business).voided, entries(business)) == (50, [("grant", 30)])
    assert apply_changes(business.runtime) == 1
    assert (balance_of(business).voided, balance_of(business).owed) == (50, 20)
    assert entries(business) == [("grant", 30), ("adjust", -30), ("adjust", -20)]


@pytest.mark.parametrize("state", ["suspended", "closed"])
def test_given_an_inactive_client_when_work_is_reserved_or_quoted_then_the_refusal_names_client_and_state(
    business: Business, state: Literal["suspended", "closed"]
) -> None:
    grant(business, 30, "k")
    admin.set_client_state(business.settings, "acme", state)
    hold = a_hold("acme", 1)
    error = refusal(business.runtime, hold, business.runtime.buckets.reserve(hold))
    assert isinstance(error, billing.ClientInactive)
    assert str(error) == f"client 'acme' is {state}; nothing was started"
    assert str(type(error)(*error.args)) == str(error), "it comes out of a result backend whole"
    assert isinstance(error, Rejected), "it is not tried again"


def test_given_a_corrupt_bucket_when_work_is_reserved_then_it_waits_for_a_rebuild_of_its_shard(
    business: Business,
) -> None:
    """L10: other clients of the shard go on until then."""
    grant(business, 30, "k")
    neighbour = next(name for name in map(str, range(1_000)) if shard_of(name, SHARDS) == shard_of("acme", SHARDS))
    business.client(neighbour, 10)
    with redis.Redis.from_url(business.settings.redis_url) as client:
        client.set(f"{{billing:{shard_of('acme', SHARDS)}}}:bucket:acme", "spoiled")
    hold = a_hold("acme", 1)
    reply = business.runtime.buckets.reserve(hold)
    assert reply.outcome is ReserveOutcome.CORRUPT
    assert isinstance(refusal(business.runtime, hold, reply), Recovering)
    business.hold(neighbour, 5)
    with business.runtime.engine.connect() as connection:
        assert list(rebuilds.requested(connection)) == [shard_of("acme", SHARDS)]
    with business.consuming():
        assert business.rebuilder.step() == 1
    business.hold("acme", 30)


def test_given_a_past_instant_when_asked_then_the_balance_is_that_of_ledger_and_log_then(business: Business) -> None:
    def at(credits_: int) -> int:
        return admin.balance_at(business.settings, "acme", instants[credits_]).left

    instants = {0: datetime.now(UTC)}
    ending = grant(business, 100, "k", expires_at=FUTURE)
    row = grant(business, 40, "l")
    instants[1] = datetime.now(UTC)
    with business.consuming():
        business.settle("acme", 30, "a")
        until_rows(business.settings, 1)
    instants[2] = datetime.now(UTC)
    admin.void(business.settings, row.grant_id)
    instants[3] = datetime.now(UTC)
    wait_until(lambda: datetime.now(UTC) > instants[3] + timedelta(milliseconds=2), "it is later")
    end(business, ending)
    wait_until(lambda: sum(map(lapse_grants, [business.runtime])) == 0 and len(entries(business)) == 4, "it has ended")
    instants[4] = datetime.now(UTC)
    assert [at(number) for number in range(5)] == [0, 140, 110, 70, 0]
    last = admin.balance_at(business.settings, "acme", instants[4])
    assert (last.granted, last.spent, last.expired, last.voided) == (140, 30, 70, 40)
    with pytest.raises(InvalidValue, match=r"^at: .*must not be after the present"):
        admin.balance_at(business.settings, "acme", FUTURE)
    with pytest.raises(UnknownClient):
        admin.balance_at(business.settings, "nobody", instants[0])


def test_given_debt_when_a_past_balance_is_asked_then_what_a_grant_had_repaid_has_not_expired_with_it(
    business: Business,
) -> None:
    """Before its end is entered as after it; debt that came when it had ended already, it has not repaid."""

    def now() -> tuple[int, int, int, int, int]:
        found = admin.balance_at(business.settings, "acme", datetime.now(UTC))
        return found.granted, found.spent, found.expired, found.voided, found.left

    with business.consuming():
        business.settle("acme", 60, "a")
        until_rows(business.settings, 1)
        assert now() == (0, 60, 0, 0, -60)
        ends = datetime.now(UTC) + timedelta(seconds=2)
        grant(business, 100, "ends", kind="promo", expires_at=ends)
        voided = grant(business, 70, "voided", skus=["image"])
        admin.adjust_credits(business.settings, "acme", -50, key="minus")
        assert (now(), balance_of(business).owed) == ((170, 60, 0, 50, 60), 0)
        wait_until(lambda: datetime.now(UTC) > ends, "it has ended")
        admin.void(business.settings, voided.grant_id)
        admin.adjust_credits(business.settings, "acme", -5, key="more")
        taken = balance_of(business)
        expected = (170, 60, taken.expired, taken.voided, -taken.owed)
        assert now() == expected
        wait_until(lambda: sum(map(lapse_grants, [business.runtime])) == 0 and len(entries(business)) == 7, "entered")
        assert now() == expected
        rebuild(business)
    assert (balance_of(business).expired, balance_of(business).voided) == (taken.expired, taken.voided)
    assert balance_of(business).owed == taken.owed == 5


def test_given_many_changes_of_one_client_that_cannot_be_applied_then_another_one_s_is(business: Business) -> None:
    """L10: a debt that no bucket can take, five hundred times over, and behind it a suspension."""
    business.client("bolt")
    business.close_shard("bolt")
    with business.runtime.engine.begin() as connection:
        for number in range(CHANGES_MAX):
            row = {"client_id": "acme", "kind": "adjust", "credits": CREDITS_MAX, "key": str(number), "reason": ""}
            connection.execute(sqlalchemy.insert(client_change).values(row))
    assert not admin.set_client_state(business.settings, "bolt", "suspended")[1]
    business.runtime.buckets.verify(shard_of("bolt", SHARDS), expected=None)

    assert apply_changes(business.runtime) == 2, "the first one of acme, and bolt's"
    balance = business.runtime.buckets.balance("bolt")
    assert balance is not None
    assert balance.terms.state is ClientState.SUSPENDED
