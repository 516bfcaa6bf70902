"""Grants with terms, from the ledger to the bucket and back: they end once, and survive a loss (L2, L6, L7)."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
import redis

from billing import admin
from billing.core.errors import Conflict, InvalidValue
from billing.core.shards import shard_of
from billing.credits.values import ReserveOutcome
from billing.reconciliation.reconcile import reconcile
from billing.recovery.lapsing import lapse_grants
from billing.task.runtime import Runtime
from tests.integration.consuming import until_rows
from tests.integration.granting import balance_of, end, entries, grant, next_turn, rebuild
from tests.integration.reconciling import PausedClock
from tests.integration.recovering import SHARDS, Business, a_hold
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

FUTURE = datetime(2100, 1, 1, tzinfo=UTC)


def test_given_terms_when_granted_then_bucket_and_ledger_have_them_and_the_same_key_with_others_is_a_conflict(
    business: Business,
) -> None:
    row = grant(business, 100, "k", kind="promo", priority=5, expires_at=FUTURE, skus=["page", "image"])
    terms = balance_of(business).grant_terms[row.grant_id]
    assert (terms.priority, terms.expires_ms, terms.skus) == (5, 4_102_444_800_000, ("image", "page"))
    same = admin.check_terms(kind="promo", priority=5, expires_at=FUTURE, skus=["page", "image"])
    assert admin.grant(business.settings, "acme", 100, key="k", terms=same)[0].grant_id == row.grant_id
    with pytest.raises(
        Conflict, match=r"^key: 'k': was used for a grant with kind promo, priority 5, expires 2100.*so it"
    ):
        admin.grant(business.settings, "acme", 100, key="k")
    with pytest.raises(
        Conflict, match=r"^key: 'k': was used for a grant of 100 credits, so it cannot be an adjustment"
    ):
        admin.adjust_credits(business.settings, "acme", -1, key="k")


@pytest.mark.parametrize(
    ("terms", "message"),
    [
        ({"kind": "gift"}, r"^kind: 'gift': must be one of paid, promo"),
        ({"priority": -1}, r"^priority: -1: must be a whole number from 0"),
        ({"skus": ["UPPER"]}, r"^sku: 'UPPER': must be"),
        ({"skus": [f"s{n}" for n in range(33)]}, r"^skus: 33: must be at most 32"),
        ({"expires_at": datetime(2020, 1, 1)}, r"^expires_at: .*: must be an aware datetime"),  # noqa: DTZ001
    ],
)
def test_given_bad_terms_when_checked_then_one_line_names_field_value_and_rule(
    terms: dict[str, object], message: str
) -> None:
    with pytest.raises(InvalidValue, match=message):
        admin.check_terms(**terms)  # type: ignore[arg-type]


def test_given_an_expiry_in_the_past_when_granted_then_it_is_refused_and_nothing_is_written(business: Business) -> None:
    past = admin.check_terms(expires_at=datetime.now(UTC) - timedelta(seconds=1))
    with pytest.raises(InvalidValue, match=r"^expires_at: '20.*': must be after the present"):
        admin.grant(business.settings, "acme", 1, terms=past)
    assert entries(business) == []


def test_given_a_grant_that_ends_when_swept_then_the_ledger_has_its_one_entry_and_the_index_forgets_it(
    business: Business,
) -> None:
    """L7: once per grant, however often it is swept, and whoever died before the index was cleaned."""
    row = grant(business, 100, "k", expires_at=FUTURE)
    business.settle("acme", 30, "a")
    assert lapse_grants(business.runtime) == 0
    end(business, row)
    assert lapse_grants(business.runtime) == 1
    assert entries(business) == [("grant", 100), ("expire", -70)]
    assert (balance_of(business).expired, balance_of(business).available) == (70, 0)
    with redis.Redis.from_url(business.settings.redis_url) as client:
        (name,) = {f"{{billing:{shard_of('acme', SHARDS)}}}:expiries"}
        assert client.zcard(name) == 0
        client.zadd(name, {f"{balance_of(business).grants[0].grant_id} acme": 1})
        assert lapse_grants(business.runtime) == 1
        assert client.zcard(name) == 0
    assert entries(business) == [("grant", 100), ("expire", -70)]


def test_given_a_hold_on_a_grant_that_ended_when_rebuilt_then_it_keeps_its_share_and_the_rest_has_expired(
    business: Business,
) -> None:
    """L6: also what expired, and what a hold was lent before, comes back to the same values."""
    row = grant(business, 100, "k", priority=1, expires_at=FUTURE)
    grant(business, 50, "l")
    business.hold("acme", 40, "a")
    end(business, row)
    assert balance_of(business).expired == 60
    before = balance_of(business)
    business.close_shard("acme")
    with business.consuming():
        assert business.rebuilder.step() == 1
        after = balance_of(business)
        assert (after.grants, after.order) == (before.grants, before.order)
        assert lapse_grants(business.runtime) == 0, "a hold refers to it"
        business.settle("acme", 10, "a")
        until_rows(business.settings, 1)
        next_turn(business, row)
        assert lapse_grants(business.runtime) == 1
        assert entries(business)[-1] == ("expire", -90)
        rebuild(business)
    assert [g.expired for g in balance_of(business).grants] == [90, 0]
    assert (balance_of(business).available, balance_of(business).owed) == (50, 0)


def test_given_debt_repaid_by_grants_that_then_ended_or_burn_later_when_rebuilt_then_each_has_repaid_what_it_had(
    business: Business,
) -> None:
    """L6: the log does not know who repaid a debt, and the ledger no end before no hold refers to the grant."""
    with business.consuming():
        business.settle("acme", 60, "debt")
        grant(business, 30, "never ends")
        ends = datetime.now(UTC) + timedelta(seconds=3)
        grant(business, 100, "ends", expires_at=ends)
        business.hold("acme", 20, "a")
        grant(business, 40, "burns first", priority=1)
        wait_until(lambda: balance_of(business).expired == 50, "it has ended")
        before = balance_of(business)
        assert ([one.repaid for one in before.grants], before.owed, before.available) == ([30, 30, 0], 0, 40)
        until_rows(business.settings, 1)
        business.close_shard("acme")
        assert business.rebuilder.step() == 1
        after = balance_of(business)
    assert (after.grants, after.owed, after.available) == (before.grants, 0, 40)


def test_given_room_and_restricted_grants_when_redis_is_emptied_then_holds_and_balances_are_as_before(
    business: Business,
) -> None:
    """L6 for overdraft room and for SKUs."""
    grant(business, 500, "k", priority=1, skus=["image"])
    grant(business, 20, "l")
    admin.set_overdraft(business.settings, "acme", 50)
    business.hold("acme", 45, "a")
    image = msgspec.structs.replace(a_hold("acme", 30, "b"), sku="image")
    assert business.runtime.buckets.reserve(image).outcome is ReserveOutcome.HELD
    before = balance_of(business)
    held = {hold.run_id: hold.grants for hold in business.runtime.buckets.held("acme")}
    assert (before.room, before.available, before.held) == (25, 470, 75)
    with business.consuming():
        business.lose()
        business.assert_running(a_hold("acme", 45, "a"), image)
        assert business.rebuilder.step() == 1
    after = balance_of(business)
    assert (after.grants, after.room, after.owed, after.terms) == (before.grants, 25, 25, before.terms)
    assert {hold.run_id: hold.grants for hold in business.runtime.buckets.held("acme")} == held


def test_given_a_corrupt_bucket_when_a_grant_meets_it_then_its_shard_is_rebuilt_and_the_grant_is_there(
    business: Business,
) -> None:
    grant(business, 30, "k")
    with redis.Redis.from_url(business.settings.redis_url) as client:
        client.set(f"{{billing:{shard_of('acme', SHARDS)}}}:bucket:acme", "spoiled")
    assert not admin.grant(business.settings, "acme", 12, key="l")[1]
    with business.consuming():
        assert business.rebuilder.step() == 1
    assert balance_of(business).available == 42


def test_given_all_that_terms_bring_about_when_reconciled_then_every_law_holds_and_a_lost_credit_is_found(
    business: Business,
) -> None:
    """L2 with what expired, was voided, adjusted, lent as room, and is reserved to some SKUs beside debt."""
    ended = grant(business, 100, "ends", expires_at=FUTURE)
    voided = grant(business, 50, "voided")
    with business.consuming():
        business.settle("acme", 20, "a")
        admin.void(business.settings, voided.grant_id)
        end(business, ended)
        wait_until(lambda: lapse_grants(business.runtime) >= 0 and len(entries(business)) == 4, "both have ended")
        admin.adjust_credits(business.settings, "acme", -5, key="minus")
        grant(business, 70, "image", skus=["image"])
        admin.set_overdraft(business.settings, "acme", 40)
        business.hold("acme", 30, "b")
        until_rows(business.settings, 1)
    balance = balance_of(business)
    assert (balance.expired, balance.voided, balance.room, balance.owed, balance.available) == (80, 55, 30, 35, 70)
    report = admin.reconcile(business.settings)
    assert report.ok, report.discrepancies
    shard = shard_of("acme", SHARDS)
    with redis.Redis.from_url(business.settings.redis_url) as client:
        client.hincrby(f"{{billing:{shard}}}:grants:acme", f"x:{ended.grant_id}", -1)
    brief, clock = dataclasses.replace(business.settings, reconcile_wait_seconds=0.25), PausedClock()
    runtime = Runtime(lambda: brief, clock)
    report = reconcile(runtime, stripe=False, wait=clock.pause)
    runtime.close()
    found = [(one.law, one.grant_id) for one in report.discrepancies if one.grant_id]
    assert found == [("L2 bucket", ended.grant_id), ("L2 grants", ended.grant_id)]
