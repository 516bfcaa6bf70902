"""Invoice items and changes of price in the stand-in: what waits for the next invoice, and what is lost."""

from __future__ import annotations

from typing import Any

import pytest
import stripe

from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.contract.billed_account import JULY, JUNE, MAY, Account, subscribe
from tests.contract.metering import DAY, HOUR, Send, metered_price


def test_an_invoice_item_lands_on_the_next_invoice(account: Account) -> None:
    """It waits until then; an item for a draft is on it at once; a final one takes none."""
    create: Any = account.client.v1.invoice_items.create
    params: Any = {
        "customer": account.customer,
        "currency": "eur",
        "quantity": 41,
        "unit_amount_decimal": "0.5",
        "description": "Late usage of April",
        "metadata": {"event_name": "credits"},
        "period": {"start": MAY - DAY, "end": MAY},
        "subscription": account.subscription.id,
    }
    waiting = create(params)
    assert (waiting.amount, waiting.invoice, str(waiting.quantity_decimal)) == (21, None, "41")
    assert [one.id for one in account.client.v1.invoice_items.list({"customer": account.customer}).data] == [waiting.id]

    account.control.set_time(JUNE)
    (draft,) = account.invoices()

    def on(invoice: stripe.Invoice) -> Any:
        return create({**params, "quantity": 2, "invoice": invoice.id})

    at_once = on(draft)
    later = create(params)
    account.control.set_time(JUNE + HOUR)
    (final,) = account.invoices()
    assert [line.quantity for line in final.lines.data] == [0, 41, 2]
    line = final.lines.data[1]
    assert (line.description, line.metadata.to_dict()) == ("Late usage of April", {"event_name": "credits"})
    assert line.parent is not None
    assert line.parent.invoice_item_details is not None
    assert line.parent.invoice_item_details.invoice_item == waiting.id
    assert final.total == 21 + 1

    def listed(**more: Any) -> list[str]:
        wanted: Any = {"customer": account.customer, **more}
        return [one.id for one in account.client.v1.invoice_items.list(wanted).data]

    assert listed(pending=True) == [later.id]
    assert listed(invoice=final.id) == [at_once.id, waiting.id]
    account.control.set_time(JULY + HOUR)
    assert account.quantities() == [[0, 41, 2], [0, 41]]
    with pytest.raises(stripe.InvalidRequestError) as caught:
        on(final)
    assert caught.value.code == "invoice_not_editable"


def test_an_item_of_another_subscription_or_currency_waits_on(account: Account) -> None:
    """Documented: scheduled invoices of other subscriptions ignore it."""
    second = subscribe(account.client, account.customer, account.price)
    create: Any = account.client.v1.invoice_items.create
    common: Any = {"customer": account.customer, "currency": "eur", "amount": 5}
    create({**common, "subscription": second.id})
    dollars = create({**common, "currency": "usd"})
    account.control.set_time(JUNE + HOUR)
    totals = {one.parent.subscription_details.subscription: one.total for one in account.invoices()}  # type: ignore[union-attr]
    assert totals == {account.subscription.id: 0, second.id: 5}
    assert [one.id for one in account.client.v1.invoice_items.list({"pending": True}).data] == [dollars.id]


@pytest.mark.parametrize(
    "wrong",
    [
        {"customer": "cus_nobody"},
        {"amount": None},
        {"unit_amount_decimal": "1"},
        {"quantity": 2},
        {"currency": None},
        {"subscription": "sub_nobody"},
        {"invoice": "in_nobody"},
        {"period": {"start": 2, "end": 1}},
    ],
)
def test_an_invoice_item_that_cannot_be_is_refused(account: Account, wrong: dict[str, Any]) -> None:
    """And nothing is left of it."""
    given = {"customer": account.customer, "currency": "eur", "amount": 5, **wrong}
    params: Any = {name: value for name, value in given.items() if value is not None}
    with pytest.raises(stripe.InvalidRequestError):
        account.client.v1.invoice_items.create(params)
    assert account.client.v1.invoice_items.list({}).data == []


@pytest.mark.parametrize(
    ("mode", "proration", "expected"),
    [("flexible", None, [7, 10]), ("flexible", "none", [7]), ("classic", None, [7])],
)
def test_a_price_that_changes_in_a_period_bills_what_was_reported_by_then(
    stripe_sandbox: SandboxControl,
    stripe_client: stripe.StripeClient,
    send: Send,
    meter: str,
    customer: str,
    *,
    mode: str,
    proration: str | None,
    expected: list[int],
) -> None:
    """Documented: an invoice item in flexible billing mode, nothing in classic; what comes later is dropped in both."""
    stripe_sandbox.knobs(billing_mode=mode)
    account = Account(stripe_sandbox, stripe_client, send, meter, customer)
    other = metered_price(account.client, account.meter, amount="3")
    change = MAY + 15 * DAY
    account.control.set_time(change)
    account.use(10, change - DAY)
    item = account.subscription["items"].data[0].id
    params: Any = {"items": [{"id": item, "price": other}]}
    if proration is not None:
        params["proration_behavior"] = proration
    account.client.v1.subscriptions.update(account.subscription.id, params)
    account.use(1000, change - DAY)  # late for the old price: never billed
    account.use(7, change + 60)

    account.control.set_time(JUNE + HOUR)
    assert account.quantities() == [expected]
    lines = account.invoices()[0].lines.data
    assert [line.amount for line in lines] == [21, 5][: len(expected)]
    assert (lines[0].period.start, lines[0].period.end) == (change, JUNE)
    if len(lines) > 1:
        assert (lines[1].period.start, lines[1].period.end) == (MAY, change)


def test_a_price_that_changes_in_the_grace_drops_what_comes_after(account: Account) -> None:
    """Documented: the draft of the ended period keeps what it had."""
    other = metered_price(account.client, account.meter, amount="3")
    account.control.set_time(JUNE + 60)
    account.use(5, JUNE - 60)
    item = account.subscription["items"].data[0].id
    account.client.v1.subscriptions.update(account.subscription.id, {"items": [{"id": item, "price": other}]})
    account.use(1000, JUNE - 60)
    account.control.set_time(JUNE + HOUR)
    assert account.quantities() == [[5]]
