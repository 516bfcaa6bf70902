"""PostgreSQL restored from an older dump: what Stripe was told since is not told again (L8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
import redis

from billing import admin
from billing.core.errors import Conflict, Fatal, InvalidValue
from billing.core.settings import Settings
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.integration.restoring import Restoring, restoring_of

pytestmark = pytest.mark.integration

REASON = "restored from a dump"
NOW = timedelta()


@pytest.fixture
def site(database: Settings, redis_url: str, stripe_sandbox: SandboxControl, tmp_path: Path) -> Iterator[Restoring]:
    with restoring_of(dataclasses.replace(database, redis_url=redis_url), stripe_sandbox, tmp_path) as found:
        yield found


def adopt(site: Restoring, client_id: str | None = None, *, dry_run: bool = False) -> list[tuple[int, int, int]]:
    """Adopt without a wait; return what was shown, adopted and left in each place that was not as known."""
    report = admin.sync_adopt(site.settings, client_id, REASON, dry_run=dry_run, lag=NOW)
    return [(place.shown, place.adopted, place.left) for place in report.places]


def refused(site: Restoring) -> None:
    """Assert that nothing is planned, and nothing sent."""
    for act in (admin.sync_plan, admin.sync_push):
        with pytest.raises(Fatal, match="of an earlier moment than Stripe was told from"):
            act(site.settings)


def test_given_a_restored_dump_when_adopted_then_stripe_has_each_credit_once(site: Restoring) -> None:
    """Given 50 told before the dump and 50 after, when it is restored and 25 more are used, Stripe has 125."""
    customer = site.client("acme")
    site.use("acme", 50)
    site.report()
    site.use("acme", 50)
    dump = site.dump()
    site.report()
    assert site.told(customer) == 100
    site.restore(dump)
    site.use("acme", 25)
    refused(site)

    assert adopt(site, dry_run=True) == [(0, 50, 0)]
    refused(site)
    assert adopt(site) == [(0, 50, 0)]
    assert adopt(site) == []
    site.report()

    assert site.told(customer) == 125
    assert site.states() == {"confirmed": 125}
    assert admin.sync_reconcile(site.settings, ["acme"]).ok


def test_given_an_increment_that_was_sent_after_the_dump_when_adopted_then_it_is_the_same(site: Restoring) -> None:
    """Planned but not sent at the dump: its own minute shows it, and it is confirmed, not sent again (L8)."""
    customer = site.client("acme")
    site.use("acme", 50)
    admin.sync_plan(site.settings)
    dump = site.dump()
    admin.sync_push(site.settings)
    site.restore(dump)
    refused(site)
    site.stripe.advance(2 * 86_400)  # Stripe does not know its identifier any more

    assert adopt(site) == [(50, 0, 0)]
    site.report()
    assert site.told(customer) == 50
    assert site.states() == {"confirmed": 50}


def test_given_more_at_stripe_than_the_log_ever_will_have_then_the_difference_is_told(site: Restoring) -> None:
    """The log's rows of after the dump are gone: what is left is named, by reconcile too, and sends go on."""
    customer = site.client("acme")
    site.use("acme", 50)
    dump = site.dump()
    site.use("acme", 30)
    site.report()
    site.restore(dump)

    assert adopt(site) == [(0, 50, 30)]
    site.use("acme", 7)
    site.report()

    assert (site.told(customer), site.states()) == (87, {"confirmed": 57})
    (row,) = admin.sync_reconcile(site.settings, ["acme"]).rows
    assert (row.difference, row.log) == (30, 57)
    assert "Stripe has 87 units, 57 units were sent" in row.found


def test_given_lost_usage_that_is_written_again_when_adopted_again_then_nothing_is_left(site: Restoring) -> None:
    customer = site.client("acme")
    dump = site.dump()
    site.use("acme", 30)
    site.report()
    site.restore(dump)
    assert adopt(site) == [(0, 0, 30)]
    site.use("acme", 40)

    assert adopt(site, "acme") == [(0, 30, 0)]
    site.report()
    assert (site.told(customer), site.states()) == (40, {"confirmed": 40})
    assert admin.sync_reconcile(site.settings, ["acme"]).ok


def test_given_a_call_in_doubt_at_the_dump_when_adopted_then_its_minute_decides(site: Restoring) -> None:
    """Its attempt was on record, its answer was not; after the dump it was confirmed."""
    customer = site.client("acme")
    site.use("acme", 50)
    site.stripe.fault("commit_then_close", path="/v1/billing/meter_events")
    admin.sync_plan(site.settings)
    assert admin.sync_push(site.settings).ambiguous == 1
    dump = site.dump()
    site.report()
    site.restore(dump)
    site.stripe.advance(2 * 86_400)

    assert adopt(site) == [(50, 0, 0)]
    site.report()
    assert (site.told(customer), site.states()) == (50, {"confirmed": 50})


def test_given_a_database_of_an_earlier_moment_when_reported_then_the_calls_that_it_lacks_are_noticed(
    site: Restoring,
) -> None:
    """A copy of the directory, or a point in time: its tables have their numbers. Twice in a row, too."""
    customer, other = site.client("acme"), site.client("other")
    site.use("acme", 50)
    site.report()
    copy = site.copy()
    site.use("acme", 30)
    site.use("other", 5)
    site.report()
    for seen in (5, 6):
        site.put_back(copy)
        site.use("acme", 30)
        site.use("other", 6)
        refused(site)
        assert adopt(site) == [(0, 30, 0), (0, seen, 0)]
        site.report()
        assert (site.told(customer), site.told(other)) == (80, 6)
        assert admin.sync_reconcile(site.settings).ok
    site.drop(copy)


def test_given_a_redis_that_was_emptied_when_reported_then_nobody_is_accused(site: Restoring) -> None:
    customer = site.client("acme")
    site.use("acme", 50)
    site.report()
    with redis.Redis.from_url(site.settings.redis_url) as client:
        client.flushall()
    site.use("acme", 30)
    site.report()
    assert (site.told(customer), site.states()) == (80, {"confirmed": 80})


def test_given_a_restored_dump_and_an_empty_redis_when_reported_then_the_tables_tell_that_they_are_new(
    site: Restoring,
) -> None:
    site.client("acme")
    dump = site.dump()
    site.restore(dump)
    with redis.Redis.from_url(site.settings.redis_url) as client:
        client.flushall()
    with pytest.raises(Fatal, match="it was restored from a dump"):
        admin.sync_plan(site.settings)
    refused(site)
    assert adopt(site) == []
    site.report()


def test_given_redis_is_away_when_reported_then_stripe_is_told_all_the_same(site: Restoring) -> None:
    customer = site.client("acme")
    site.use("acme", 50)
    away = dataclasses.replace(site.settings, redis_url="redis://127.0.0.1:1/0", redis_timeout_seconds=1.0)
    admin.sync_plan(away)
    assert admin.sync_push(away).sent == 1
    assert site.told(customer) == 50
    admin.close(away)


def test_given_both_were_lost_when_reported_then_who_has_unknown_units_is_held_and_others_go_on(
    site: Restoring,
) -> None:
    """An earlier database and an empty Redis: Stripe's own sum is all that tells (L8, L10)."""
    customer, other = site.client("acme"), site.client("other")
    copy = site.copy()
    site.use("acme", 50)
    site.report()
    site.put_back(copy)
    with redis.Redis.from_url(site.settings.redis_url) as client:
        client.flushall()
    site.use("acme", 60)
    site.use("other", 5)
    planned = admin.sync_plan(site.settings)
    pushed = admin.sync_push(site.settings)
    site.drop(copy)

    assert (planned.increments, pushed.sent) == (1, 1)
    (waits,) = planned.waiting
    assert waits.startswith("held: Stripe has 50 units of customer")
    assert (site.told(customer), site.told(other)) == (50, 5)
    assert adopt(site, "acme") == [(0, 50, 0)]
    site.report()
    assert (site.told(customer), site.told(other)) == (60, 5)
    assert admin.sync_reconcile(site.settings).ok


def test_given_what_was_planned_before_both_were_lost_when_pushed_then_it_is_held_until_adopted(
    site: Restoring,
) -> None:
    """Stripe does not know its identifier any more: only its sum is left to tell (L8)."""
    customer = site.client("acme")
    site.use("acme", 50)
    admin.sync_plan(site.settings)
    copy = site.copy()
    admin.sync_push(site.settings)
    site.put_back(copy)
    site.drop(copy)
    with redis.Redis.from_url(site.settings.redis_url) as client:
        client.flushall()
    site.stripe.advance(2 * 86_400)

    pushed = admin.sync_push(site.settings)
    assert (pushed.sent, len(pushed.held)) == (0, 1)
    assert adopt(site, "acme") == [(50, 0, 0)]
    site.report()
    assert (site.told(customer), site.states()) == (50, {"confirmed": 50})


def test_given_sums_that_may_not_show_all_yet_when_adopted_then_it_is_refused_with_the_time(site: Restoring) -> None:
    site.client("acme")
    site.use("acme", 50)
    dump = site.dump()
    site.report()
    site.restore(dump)
    with pytest.raises(Conflict, match=r"adopt after 20\d\d-\d\d-\d\d \d\d:\d\d UTC, or name a shorter --lag-hours"):
        admin.sync_adopt(site.settings, None, REASON)
    with pytest.raises(InvalidValue, match="must say why"):
        admin.sync_adopt(site.settings, None, " ", lag=NOW)
    with pytest.raises(InvalidValue, match="is not linked to a customer"):
        admin.sync_adopt(site.settings, "nobody", REASON, lag=NOW)
    refused(site)
