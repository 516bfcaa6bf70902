"""The doctor's look at the report to Stripe: every meter in use, what waits, for whom, and what to do."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest

from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.observability.doctor.stripe import _key, _meters, examine_stripe
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.integration.invoicing import METER, Invoicing, invoicing_on

pytestmark = pytest.mark.integration

NOW = datetime.now(UTC)
START = (NOW - timedelta(days=5)).replace(minute=0, second=0, microsecond=0)
PRESENT = (START, START + timedelta(days=30))


@pytest.fixture
def books(database: Settings, stripe_sandbox: SandboxControl) -> Iterator[Invoicing]:
    """Open books with a linked client that has used 5 credits, beside a stand-in that has the meter."""
    with invoicing_on(database, stripe_sandbox_url=stripe_sandbox.url) as opened:
        with Gateway(opened.settings) as gateway:
            gateway.setup()
        opened.client("acme", "cus_acme")
        opened.use("acme", 5, START)
        yield opened


def warned(books: Invoicing) -> dict[str, str]:
    """Return what the doctor warns of: what it has seen, and its advice."""
    return {one.seen: one.advice for one in examine_stripe(books.runtime) if one.verdict.value == "warn"}


def test_given_a_report_that_goes_well_then_nothing_is_warned_of(books: Invoicing) -> None:
    books.increment("acme", PRESENT, {("page", START): (0, 5)})
    assert warned(books) == {}


def test_given_several_meters_then_each_in_use_is_looked_at(books: Invoicing) -> None:
    """A meter that counts no SKU is nobody's business."""
    for name in ("tokens", "idle"):
        books.sql("INSERT INTO meter (event_name) VALUES (%s)", name)
    books.sql("INSERT INTO sku_meter (sku, event_name) VALUES ('token', 'tokens')")

    assert warned(books) == {"has no active meter tokens": "run: billing stripe setup"}


def test_given_a_customer_without_a_subscription_then_its_usage_is_named_with_the_reason(books: Invoicing) -> None:
    books.sql("INSERT INTO stripe_period_read VALUES ('cus_acme', now(), 'it has no subscription')")

    ((seen, advice),) = warned(books).items()

    assert seen == "without a subscription: 5 credits of 1 clients (acme): it has no subscription"
    assert advice.startswith("subscribe these customers")


@pytest.mark.parametrize("state", ["rejected", "quarantined"])
def test_given_an_increment_for_a_person_then_they_are_told_how_to_resolve_it(books: Invoicing, state: str) -> None:
    books.increment("acme", PRESENT, {("page", START): (0, 5)}, state=state)

    ((seen, advice),) = warned(books).items()

    assert seen == "1 increments wait for a person"
    assert "billing sync resolve INCREMENT --as … --reason …" in advice


def test_given_an_increment_that_nobody_pushes_then_its_age_is_named(books: Invoicing) -> None:
    planned = NOW - timedelta(hours=25)
    books.increment("acme", PRESENT, {("page", START): (0, 5)}, state="pending", planned_at=planned)

    found = warned(books)

    assert f"the oldest pending increment was planned {planned:%Y-%m-%d %H:%M} UTC" in found
    assert any("billing sync push" in advice for advice in found.values())


def test_given_error_reports_of_calls_that_are_not_ours_then_the_latest_is_named(books: Invoicing) -> None:
    for number, code in enumerate(("no_meter", "archived_meter")):
        books.sql(
            "INSERT INTO stripe_error_report (event_id, event_name, code, count, window_start, window_end, samples,"
            " increments) VALUES (%s, %s, %s, 1, %s, %s, '[]', '[]')",
            *(f"evt_{number}", METER, code, START, START + timedelta(minutes=number)),
        )

    assert list(warned(books)) == [f"2 error reports of calls that are not ours: archived_meter ({METER})"]
    seen = [one.seen for one in examine_stripe(books.runtime)]
    assert f"last error report: {START + timedelta(minutes=1):%Y-%m-%d %H:%M} UTC" in seen


@pytest.mark.parametrize(("hours", "count"), [(1, 1), (71, 1), (72, 0)])
def test_given_a_key_and_a_short_grace_then_it_says_what_to_raise(books: Invoicing, hours: int, count: int) -> None:
    """With the stand-in no invoice is anybody's."""
    settings = dataclasses.replace(books.settings, stripe_api_key="rk_test_abcdefgh", stripe_grace_hours=hours)
    # No call is made with this key.
    found = [one for one in _key(settings) if one.verdict.value == "warn"]

    assert [one.seen.startswith(f"an invoice is final {hours} h after its period") for one in found] == [True] * count
    assert not [one for one in _key(books.settings) if one.verdict.value == "warn"]


@pytest.mark.parametrize(
    ("key", "verdict", "advice"),
    [("", "warn", "billing stripe sandbox"), ("sk_test_somebody", "fail", "https://status.stripe.com")],
)
def test_a_stripe_that_does_not_answer_is_told_by_whether_it_is_used(
    books: Invoicing, monkeypatch: pytest.MonkeyPatch, key: str, verdict: str, advice: str
) -> None:
    """Who has a key is not told to set one."""

    def away(_gateway: Gateway, _event_name: str) -> None:
        raise Unreachable("Stripe: no answer came")

    monkeypatch.setattr(Gateway, "meter", away)
    settings = dataclasses.replace(books.settings, stripe_api_key=key)
    (found,) = _meters(settings, [METER])

    assert (found.verdict.value, found.seen) == (verdict, "Stripe: no answer came")
    assert advice in found.advice
