"""Billing periods as Stripe has them: the subscription item's, the one before it, and when its invoice is final."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import stripe

from billing.core.errors import Fatal, Unreachable
from billing.core.settings import Settings
from billing.sinks.stripe.period_reader import UNANSWERED_MAX, StripePeriods
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.sinks.sync.planning.periods import KnownPeriod
from tests.contract.metering import make_meter, metered_price
from tests.contract.stripe_accounts import DAY, HOUR, JULY, JUNE, MARGIN, MAY, METER, Account


@pytest.fixture
def account(stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient) -> Account:
    """Make an account."""
    return Account(stripe_sandbox, stripe_client)


def known(account: Account, start: datetime, end: datetime, closes_at: datetime, **more: bool) -> KnownPeriod:
    """Return a period of the account's first subscription."""
    return KnownPeriod(start=start, end=end, closes_at=closes_at, subscription_id=account.subscription, **more)


def test_the_period_is_the_subscription_item_s_and_closes_after_the_grace(account: Account) -> None:
    """Given an anchor in the month, then the period is not the month; it closes a little before its invoice may."""
    account.at(MAY + 9 * DAY + timedelta(hours=9, minutes=30, seconds=12))
    other = account.new_customer()
    subscription = account.subscribe(other)

    found = account.periods(other, grace=72 * HOUR)

    start = datetime(2026, 5, 10, 9, 30, 12, tzinfo=UTC)
    end = datetime(2026, 6, 10, 9, 30, 12, tzinfo=UTC)
    closes_at = end + 72 * HOUR - MARGIN
    assert found.periods == {
        METER: [KnownPeriod(start=start, end=end, closes_at=closes_at, subscription_id=subscription)]
    }
    assert found.reason(METER) == ""


def test_the_period_that_just_ended_is_told_as_long_as_its_invoice_is_the_latest(account: Account) -> None:
    """Stripe's own word when the invoice is a draft, and when it became final earlier than the grace says."""
    account.at(JUNE + timedelta(minutes=1))
    june = known(account, JUNE, JULY, JULY + 72 * HOUR - MARGIN)

    # The stand-in's grace is Stripe's default, an hour; what is set here says 72.
    assert account.periods(grace=72 * HOUR).periods == {METER: [known(account, MAY, JUNE, JUNE + HOUR - MARGIN), june]}
    account.at(JUNE + 2 * HOUR)
    assert account.periods(grace=72 * HOUR).periods == {METER: [known(account, MAY, JUNE, JUNE + HOUR), june]}

    account.at(JULY + HOUR)
    told = account.periods(grace=HOUR).periods[METER]
    assert [(one.start, one.end) for one in told] == [(JUNE, JULY), (JULY, datetime(2026, 8, 1, tzinfo=UTC))]


def test_a_subscription_that_ends_has_a_last_period_without_grace(account: Account) -> None:
    """Given one that is cancelled at its period's end, then nothing may begin after that, unless an invoice waits."""
    account.client.v1.subscriptions.update(account.subscription, {"cancel_at_period_end": True})

    assert account.periods(grace=72 * HOUR).periods == {METER: [known(account, MAY, JUNE, JUNE - MARGIN, ended=True)]}

    account.at(JUNE + timedelta(seconds=1))
    over = account.periods(grace=72 * HOUR)
    assert over.periods == {METER: [known(account, MAY, JUNE, JUNE + HOUR - MARGIN, ended=True)]}
    assert "canceled" in over.reason(METER)
    account.at(JUNE + DAY)
    (last,) = account.periods(grace=72 * HOUR).periods[METER]
    assert last.closes_at is not None
    assert last.closes_at <= JUNE + HOUR


def test_a_subscription_that_was_cancelled_at_once_is_over(account: Account) -> None:
    """Its last period ends with it, and a new subscription begins another one."""
    account.at(MAY + 3 * DAY)
    account.client.v1.subscriptions.cancel(account.subscription)
    account.at(MAY + 4 * DAY)

    over = account.periods()
    (last,) = over.periods[METER]
    assert (last.start, last.end, last.ended) == (MAY, MAY + 3 * DAY, True)
    assert last.closes_at is not None
    assert last.closes_at <= MAY + 3 * DAY
    assert "canceled" in over.reason(METER)

    account.subscribe(account.customer)
    found = account.periods()
    assert [(one.start, one.ended) for one in found.periods[METER]] == [(MAY, True), (MAY + 4 * DAY, False)]
    assert found.reason(METER) == ""


def test_usage_that_two_subscriptions_would_bill_waits(account: Account) -> None:
    """L8: Stripe bills it twice; the refusal names both."""
    second = account.subscribe(account.customer)

    found = account.periods()

    assert not found.periods.get(METER)
    assert account.subscription in found.reason(METER)
    assert second in found.reason(METER)


def test_each_meter_has_its_own_subscription(account: Account) -> None:
    tokens = make_meter(account.client, event_name="tokens").id
    yearly = {"interval": "year", "usage_type": "metered", "meter": str(tokens)}
    account.subscribe(account.customer, metered_price(account.client, str(tokens), recurring=yearly))

    found = account.periods().periods

    assert {name: [one.end for one in group] for name, group in found.items()} == {
        METER: [JUNE],
        "tokens": [datetime(2027, 5, 1, tzinfo=UTC)],
    }


def test_an_item_that_was_added_later_bills_what_came_after_it(account: Account) -> None:
    """Given a subscription to something else, then usage before the metered item joined it is in no period."""
    flat = account.client.v1.prices.create(
        {
            "product": account.client.v1.products.create({"name": "seat"}).id,
            "currency": "eur",
            "unit_amount": 900,
            "recurring": {"interval": "month"},
        }
    ).id
    customer = account.new_customer()
    subscription = account.subscribe(customer, flat)
    assert account.periods(customer).reason(METER).startswith(customer)
    account.at(MAY + 10 * DAY)
    account.client.v1.subscriptions.update(subscription, {"items": [{"price": account.price}]})

    (period,) = account.periods(customer).periods[METER]

    assert (period.start, period.end) == (MAY + 10 * DAY, JUNE)


def test_who_has_none_is_told_why_and_keeps_no_other_waiting(account: Account) -> None:
    """L10: no subscription, a deleted customer, an unknown one, one that Stripe fails for; the last is still read."""
    without, deleted, failing = account.new_customer(), account.new_customer(), account.new_customer()
    account.client.v1.customers.delete(deleted)
    account.control.fault("error", customer=failing, count=100)
    source = account.source()

    found = source.read([without, deleted, "cus_unknown", failing, account.customer])
    source.close()

    assert list(found) == [without, deleted, "cus_unknown", account.customer]
    assert [found[one].reason(METER) for one in (without, deleted)] == [
        f"{without} has no subscription that bills a meter",
        f"{deleted} was deleted at Stripe",
    ]
    assert "is no customer" in found["cus_unknown"].reason(METER) or "No such customer" in found["cus_unknown"].reason(
        METER
    )
    assert found[account.customer].periods[METER][0].end == JUNE


def test_many_who_cannot_be_read_keep_nobody_waiting(account: Account) -> None:
    """L10: as long as somebody is answered in between, Stripe is there; who was not read is not in the answer."""
    failing = [account.new_customer() for _ in range(UNANSWERED_MAX + 2)]
    for one in failing:
        account.control.fault("error", customer=one, count=100)
    source = account.source()

    others = [account.new_customer() for _ in failing]

    found = source.read([name for pair in zip(failing, others, strict=True) for name in pair])
    source.close()

    assert list(found) == others


def test_nobody_listens(account: Account) -> None:
    """Given that no customer is answered, then reading ends after a few, and says so."""
    account.control.fault("unavailable", path="/v1/subscriptions", count=1_000)
    source = account.source()

    with pytest.raises(Unreachable, match="Stripe"):
        source.read([f"cus_{number}" for number in range(3 * UNANSWERED_MAX)])
    source.close()
    assert account.control.state()["calls"].get("GET /v1/subscriptions", 0) <= 3 * UNANSWERED_MAX

    closed = StripePeriods(Settings(stripe_sandbox_url="http://127.0.0.1:1"), grace=HOUR)
    with pytest.raises(Unreachable, match="does not answer"):
        closed.read([account.customer])
    assert closed.read([]) == {}
    closed.close()


def test_every_call_waits_for_its_turn(account: Account) -> None:
    """The fleet's rate is asked before each call, those that look at an invoice as well."""
    account.at(JUNE + HOUR)
    before, turns = len(account.control.requests()), [0]

    def turn() -> None:
        turns[0] += 1

    source = account.source(turn=turn)
    source.read([account.customer])
    source.close()

    assert turns[0] == len(account.control.requests()) - before > 0


def test_a_wrong_key_is_fatal(account: Account) -> None:
    source = account.source()
    source._session.client._requestor._options.api_key = "sk_live_hunter2"
    with pytest.raises(Fatal, match="billing_stripe_api_key") as raised:
        source.read([account.customer])
    source.close()
    assert "hunter2" not in str(raised.value)
