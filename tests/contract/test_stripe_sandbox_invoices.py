"""Invoices of the stand-in, through the real SDK and on its clock: what is billed, when it is final, what is lost."""

from __future__ import annotations

from typing import Any

import pytest

from tests.contract.billed_account import JULY, JUNE, MAY, Account, at, period, subscribe
from tests.contract.metering import DAY, HOUR


def test_a_period_s_invoice_is_a_draft_for_the_grace_and_then_final(account: Account) -> None:
    """An hour by default; the draft shows what it would be, the final invoice what was there when it became final."""
    account.control.set_time(MAY + 10 * DAY)
    account.use(100, MAY + 9 * DAY)
    account.control.set_time(JUNE)
    (draft,) = account.invoices()
    assert (draft.status, draft.created, draft.automatically_finalizes_at) == ("draft", JUNE, JUNE + HOUR)
    assert draft.status_transitions.finalized_at is None
    assert (draft.period_start, draft.period_end) == (MAY, JUNE)
    assert account.quantities() == [[100]]

    account.control.set_time(JUNE + HOUR - 1)
    account.use(11, JUNE - 1)  # in the grace: billed
    account.use(5, JUNE)  # of the next period
    account.control.set_time(JUNE + HOUR)
    account.use(1000, JUNE - 1)  # too late: on no invoice

    (final,) = account.invoices()
    (line,) = final.lines.data
    assert (final.status, final.status_transitions.finalized_at, final.number is not None) == (
        "open",
        JUNE + HOUR,
        True,
    )
    assert (line.quantity, line.amount, final.total) == (111, 56, 56)  # 55.5 hundredths, rounded half up
    assert (line.period.start, line.period.end) == (MAY, JUNE)
    assert line.pricing is not None
    assert line.pricing.price_details is not None
    assert line.pricing.price_details.price == account.price

    account.control.set_time(JULY + HOUR)
    assert account.quantities() == [[111], [5]]
    assert account.invoices()[0].to_dict() == final.to_dict()


def test_months_that_nobody_looked_at_are_billed_in_their_order(account: Account) -> None:
    """The clock may jump: each period has its own invoice, its own grace, and its own usage."""
    account.control.set_time(MAY + 20 * DAY)
    account.use(1, MAY + 19 * DAY)
    account.control.set_time(at(2026, 9, 3))
    account.use(7, at(2026, 9, 2))
    made = account.invoices()
    assert [(one.period_start, one.status_transitions.finalized_at) for one in made] == [
        (at(2026, month, 1), at(2026, month + 1, 1) + HOUR) for month in (5, 6, 7, 8)
    ]
    assert account.quantities() == [[1], [0], [0], [0]]
    assert [one.status for one in made] == ["open", "paid", "paid", "paid"]
    assert period(account.now()) == (at(2026, 9, 1), at(2026, 10, 1))
    assert account.now().latest_invoice == made[-1].id


def test_the_grace_is_a_knob_of_at_most_72_hours(account: Account) -> None:
    """Documented. What comes before its end is billed, what comes at its end is not."""
    account.control.knobs(invoice_grace_seconds=72 * HOUR)
    account.control.set_time(JUNE + 72 * HOUR - 1)
    account.use(3, JUNE - 1)
    account.control.advance(1)
    account.use(4, JUNE - 1)
    assert account.quantities() == [[3]]
    with pytest.raises(Exception, match="from 0 to 259200"):
        account.control.knobs(invoice_grace_seconds=72 * HOUR + 1)


def test_what_is_not_aggregated_yet_is_on_no_invoice(account: Account) -> None:
    """Events are aggregated asynchronously: one that was received, but not seen in time, is lost to the invoice."""
    account.control.knobs(invoice_lag_seconds=600)
    account.control.set_time(JUNE + HOUR - 600)
    account.use(3, JUNE - 1)
    account.control.advance(1)
    account.use(4, JUNE - 1)
    account.control.set_time(JULY + HOUR)
    assert account.quantities() == [[3], [0]]


def test_a_total_below_0_is_billed_as_0(account: Account) -> None:
    """Documented; nothing is carried."""
    account.control.set_time(MAY + DAY)
    account.use(-5, MAY + HOUR)
    account.control.set_time(JUNE + HOUR)
    assert account.quantities() == [[0]]


def test_no_invoice_follows_a_subscription_that_is_canceled_at_its_period_s_end(account: Account) -> None:
    """Its last period is billed, with the grace; what is used after it never is."""
    account.client.v1.subscriptions.update(account.subscription.id, {"cancel_at_period_end": True})
    assert account.now().cancel_at == JUNE
    account.control.set_time(JUNE + 60)
    account.use(5, JUNE - 60)
    account.use(7, JUNE + 30)
    assert (account.now().status, account.now().ended_at) == ("canceled", JUNE)
    account.control.set_time(at(2026, 9, 1))
    assert account.quantities() == [[5]]


def test_the_last_invoice_is_final_at_once_when_the_knob_says_so(account: Account) -> None:
    """Whether the grace is for it too is not documented."""
    account.control.knobs(last_invoice="at_once")
    account.client.v1.subscriptions.update(account.subscription.id, {"cancel_at_period_end": True})
    account.control.set_time(JUNE - 60)
    account.use(5, JUNE - 120)
    account.control.set_time(JUNE + 60)
    account.use(6, JUNE - 120)
    assert account.quantities() == [[5]]
    assert account.invoices()[0].status_transitions.finalized_at == JUNE


@pytest.mark.parametrize("invoice_now", [False, True])
def test_a_subscription_that_is_canceled_at_once_is_billed_only_when_asked(
    account: Account, *, invoice_now: bool
) -> None:
    """Documented: `invoice_now` is false by default, and what was used since the period's start is lost."""
    account.control.set_time(MAY + 5 * DAY)
    account.use(5, MAY + DAY)
    account.client.v1.subscriptions.cancel(account.subscription.id, {"invoice_now": invoice_now})
    account.control.set_time(at(2026, 9, 1))
    assert account.quantities() == ([[5]] if invoice_now else [])
    if invoice_now:
        (invoice,) = account.invoices()
        assert (invoice.period_end, invoice.status_transitions.finalized_at) == (
            MAY + 5 * DAY,
            MAY + 5 * DAY + HOUR,
        )


def test_a_subscription_s_first_invoice_is_final_at_once(account: Account) -> None:
    """Documented; of 0 for metered prices, and not there at all when the knob says so."""
    (first,) = account.client.v1.invoices.list({"subscription": account.subscription.id}).data
    assert (first.billing_reason, first.status, first.total) == ("subscription_create", "paid", 0)
    account.control.knobs(first_invoice=False)
    second = subscribe(account.client, account.customer, account.price)
    assert account.client.v1.invoices.list({"subscription": second.id}).data == []


def test_what_is_paid_ahead_is_on_the_first_invoice(account: Account) -> None:
    """A licensed price is billed for the period that begins, a metered one for the one that ends."""
    product = account.client.v1.products.create({"name": "seat"}).id
    params: Any = {"product": product, "currency": "eur", "recurring": {"interval": "month"}, "unit_amount": 900}
    seat = account.client.v1.prices.create(params).id
    made = subscribe(account.client, account.customer, seat, account.price)
    (first,) = account.client.v1.invoices.list({"subscription": made.id}).data
    assert first.total == 900
    account.control.set_time(JUNE + HOUR)
    second = account.invoices(subscription=made.id)[0]
    assert [(line.period.start, line.amount) for line in second.lines.data] == [(MAY, 0), (JUNE, 900)]


def test_a_deleted_customer_is_billed_no_more(account: Account) -> None:
    """Documented: its subscriptions end at once."""
    account.client.v1.customers.delete(account.customer)
    assert account.now().status == "canceled"
    account.control.set_time(JULY)
    assert account.quantities() == []
