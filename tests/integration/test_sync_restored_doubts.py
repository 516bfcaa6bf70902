"""Where the guard of a restored database may not stop a fleet, nor hold anybody for ever, nor lose a unit (L8, L10)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from billing import admin
from billing.admin.access import runtime_for
from billing.core.clock import SystemClock
from billing.core.errors import Conflict, Fatal, InvalidValue, Unreachable
from billing.core.settings import Settings
from billing.embedded.valkey import Valkey
from billing.sinks.sink import Kind, Payload
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.restored import told_of
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.sinks.sync.postgres.log import PostgresLog
from billing.sinks.sync.restored import places
from billing.sinks.sync.restored.adopting import Adopter
from billing.sinks.sync.restored.comparing import Comparing
from billing.sinks.sync.restored.places import PlaceLog
from billing.sinks.sync.restored.told import Told
from tests.integration.restoring import METER, Restoring, restoring_of

pytestmark = pytest.mark.integration

REASON = "another system's"


@pytest.fixture
def site(database: Settings, redis_url: str, stripe_sandbox: SandboxControl, tmp_path: Path) -> Iterator[Restoring]:
    with restoring_of(dataclasses.replace(database, redis_url=redis_url), stripe_sandbox, tmp_path) as found:
        yield found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    """Start a Redis of this test's own."""
    own = Valkey(tmp_path / "redis")
    own.start()
    yield own
    own.stop()


def foreign(site: Restoring, customer: str, units: int, *, ago: timedelta = timedelta(hours=2)) -> None:
    """Have another system report units of a customer."""
    at = datetime.now(UTC).replace(second=0, microsecond=0) - ago
    payload = Payload(
        kind=Kind.METER_EVENT,
        identifier=f"theirs-{customer}-{ago}",
        event_name=METER,
        customer_id=customer,
        units=units,
        event_at=at,
        period_start=at,
        period_end=at,
    )
    with Gateway(site.settings) as gateway:
        assert gateway.send(payload, idempotency_key=payload.identifier).http_status == 200


def test_given_held_customers_that_fill_a_push_when_pushed_again_then_others_are_told(site: Restoring) -> None:
    """Planned before they were held, and the oldest: they are tried last (L10)."""
    customer, other = site.client("acme"), site.client("other")
    site.use("acme", 5)
    admin.sync_plan(site.settings)
    foreign(site, customer, 9)
    with redis.Redis.from_url(site.settings.redis_url) as client:
        client.flushall()
    site.use("other", 7)
    admin.sync_plan(site.settings)
    one = dataclasses.replace(site.settings, stripe_push_batch=1)
    assert len(admin.sync_push(one).held) == 1
    assert admin.sync_push(one).sent == 1
    assert (site.told(customer), site.told(other)) == (9, 7)
    admin.close(one)


def test_given_units_outside_of_all_periods_when_adopted_then_nobody_is_held_for_ever(
    site: Restoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer = site.client("acme")
    foreign(site, customer, 9)
    site.use("acme", 5)
    monkeypatch.setattr(PlaceLog, "places", lambda *_, **__: [])
    assert admin.sync_plan(site.settings).increments == 0
    admin.sync_adopt(site.settings, "acme", REASON)
    site.report()
    assert site.told(customer) == 14


def test_given_units_of_another_system_when_adopted_as_not_ours_then_all_usage_is_told(site: Restoring) -> None:
    """Taking usage for them would be units that nobody ever pays for (L8)."""
    customer = site.client("acme")
    foreign(site, customer, 9)
    site.use("acme", 5)
    assert admin.sync_plan(site.settings).increments == 0
    report = admin.sync_adopt(site.settings, "acme", REASON, ours=False)
    assert (report.left, report.is_trusted) == (9, True)
    site.report()
    assert (site.told(customer), site.states()) == (14, {"confirmed": 5})


def test_given_a_call_of_a_clock_that_was_ahead_when_adopted_at_once_then_it_is(site: Restoring) -> None:
    """`lag` of nothing is a person's word: it may not wait until a wrong clock's time has come."""
    ahead = datetime.now(UTC) + timedelta(days=300)
    told_of(runtime_for(site.settings)).note("of-nobody", ahead)
    with pytest.raises(Fatal, match="lacks 1 of the latest 1 calls"):
        admin.sync_plan(site.settings)
    assert admin.sync_adopt(site.settings, None, REASON, lag=timedelta()).is_trusted
    admin.sync_plan(site.settings)


def test_given_a_meter_and_a_customer_that_stripe_knows_no_more_when_all_are_adopted_then_the_report_goes_on(
    site: Restoring,
) -> None:
    """One customer that was deleted, or a meter of long ago, would stop a whole fleet's report for ever (L10)."""
    customer = site.client("acme")
    site.use("acme", 50)
    for client_id in ("gone", "old"):
        site.client(client_id)
        site.use(client_id, 5)
    site.report()
    dump = site.dump()
    site.use("acme", 30)
    site.report()
    site.restore(dump)
    site.use("acme", 40)
    site.sql("ALTER TABLE stripe_increment DISABLE TRIGGER USER")
    site.sql("UPDATE stripe_increment SET event_name = 'meter_of_long_ago' WHERE client_id = 'old'")
    site.sql("UPDATE stripe_customer SET customer_id = 'cus_unknown' WHERE client_id = 'gone'")
    with pytest.raises(Fatal, match="of an earlier moment"):
        admin.sync_plan(site.settings)

    report = admin.sync_adopt(site.settings, None, REASON, lag=timedelta())

    assert report.is_trusted
    assert [(place.client_id, place.adopted) for place in report.places if not place.left] == [("acme", 30)]
    assert [line.partition(":")[0] for line in report.skipped] == ["meter meter_of_long_ago", "client gone"]
    site.report()
    assert site.told(customer) == 90


def test_given_a_meter_that_tells_nothing_when_planned_then_others_are_compared(site: Restoring) -> None:
    customer = site.client("other")
    site.client("acme")
    site.use("acme", 5)
    site.sql("INSERT INTO meter (event_name, credits_per_unit, unit) VALUES ('meter_of_long_ago', 1, 'x')")
    site.sql("INSERT INTO sku_meter (sku, event_name) VALUES ('page', 'meter_of_long_ago')")
    site.sql("UPDATE usage_rollup SET sku = 'page'")
    site.use("other", 5)
    site.sql("UPDATE usage_rollup SET sku = 'search' WHERE client_id = 'other'")
    foreign(site, customer, 9)
    (*_, waits) = sorted(admin.sync_plan(site.settings).waiting)
    assert waits.startswith("held: Stripe has 9 units")


def test_given_more_increments_than_are_looked_at_when_adopted_then_the_client_is_skipped(
    site: Restoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was left out would be taken for unknown, and usage for told that never was: nobody would pay for it (L8)."""
    customer, other = site.client("acme"), site.client("other")
    for credits in (50, 30):
        site.use("acme", credits)
        site.report()
    foreign(site, other, 9)
    site.use("acme", 40)
    site.use("other", 5)
    for bound, found in (("INCREMENTS_MAX", "increments"), ("LOOKS_MAX", "unconfirmed increments")):
        with monkeypatch.context() as patch:
            patch.setattr(places, bound, 1)
            report = admin.sync_adopt(site.settings, None, REASON)
        assert [place.client_id for place in report.places] == ["other"]
        (line,) = report.skipped
        assert line.startswith(f"client acme: client: 'acme': has more than 1 {found} of {METER} in the period from ")
        site.sql("UPDATE stripe_increment SET state = 'sent', confirmed_at = NULL WHERE client_id = 'acme'")
    site.report()
    assert (site.told(customer), site.told(other)) == (120, 9)


def test_given_more_open_items_than_are_looked_at_when_adopted_then_it_is_refused(
    site: Restoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.client("acme")
    monkeypatch.setattr(places, "LOOKS_MAX", -1)
    with pytest.raises(InvalidValue, match="'acme': has more than -1 open invoice items: too many"):
        admin.sync_adopt(site.settings, "acme", REASON)


def test_given_a_sum_that_moves_while_it_is_read_when_adopted_then_it_is_refused(site: Restoring) -> None:
    """What only the sum of the period has yet would be taken for unknown, and other usage for told."""
    customer = site.client("acme")
    site.use("acme", 50)
    admin.sync_plan(site.settings)
    admin.sync_push(site.settings)
    site.use("acme", 20)
    runtime, clock = runtime_for(site.settings), SystemClock()
    log = PlaceLog(runtime.engine)

    class Lagging(Gateway):
        looks = 0

        def shown(self, payload: Payload) -> int:
            self.looks += 1
            return super().shown(payload) if self.looks > 1 else 0

    with Lagging(site.settings) as sink:
        adopter = Adopter(log, sink, clock, books="stand-in", reason=REASON, meter=METER, dry_run=False)
        (*_, place) = log.places("acme", customer, meter=METER, months=True, grace=timedelta(), now=clock.now())
        with pytest.raises(Conflict, match="try again"):
            adopter.adopt(place)
        assert adopter.adopt(place).adopted == 0
    site.report()
    assert site.told(customer) == 70


@pytest.mark.parametrize("refusal", ["full", "forbidden"])
def test_given_a_redis_that_refuses_when_reported_then_stripe_is_told_all_the_same(
    site: Restoring, server: Valkey, refusal: str
) -> None:
    """Full, or a user of before the upgrade: the sums are compared instead."""
    url = server.url
    with redis.Redis.from_url(url) as client:
        if refusal == "full":
            client.config_set("maxmemory", "1")
        else:
            client.acl_setuser("old", enabled=True, passwords=["+secret"], keys=["*"], commands=["+get"])
            url = f"redis://old:secret@127.0.0.1:{server.port}/0"
    settings = dataclasses.replace(site.settings, redis_url=url)
    customer = site.client("acme")
    site.use("acme", 50)
    admin.sync_plan(settings)
    assert admin.sync_push(settings).sent == 1
    assert site.told(customer) == 50
    admin.close(settings)


def test_given_redis_is_away_when_many_are_compared_then_it_is_asked_once(
    site: Restoring, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each of thousands of customers would wait for it, until the push is over (L9)."""
    runtime, asked = runtime_for(site.settings), []

    def away(*_: object) -> None:
        asked.append(1)
        message = "Redis is away"
        raise Unreachable(message)

    monkeypatch.setattr(Told, "_do", away)
    for number in range(3):
        site.client(f"client-{number}")
        site.use(f"client-{number}", 5)
    comparing = Comparing(
        runtime.engine, PostgresLog(runtime.engine), told_of(runtime), SystemClock(), books="stand-in"
    )
    with Gateway(site.settings) as sink:
        assert comparing.hold_back(sink, METER) == {}
    assert len(asked) == 1
