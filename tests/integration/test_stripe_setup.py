"""`billing stripe setup`, `billing client link --create|--subscribe|--replace`, `billing meter`: as users type them."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy
import stripe

from billing import admin
from billing.core.clock import SystemClock
from billing.core.errors import Conflict, InvalidValue
from billing.core.settings import Settings
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.integration.syncing import METER, NOON, Syncing
from tests.terminal import Terminal

pytestmark = pytest.mark.integration

PRICED = ("stripe", "setup", "--price", "0.20", "--currency", "EUR")


@pytest.fixture
def reporting(shop: Terminal, stripe_sandbox: SandboxControl) -> Terminal:
    """Open a shop, with the client `acme`, whose reports go to the stand-in."""
    return Terminal({**shop.environment, "BILLING_STRIPE_SANDBOX_URL": stripe_sandbox.url}, shop.directory)


@pytest.fixture
def syncing(engine: object, database: Settings, stripe_sandbox: SandboxControl) -> Syncing:
    """Return the shop's database, as another process sees it."""
    settings = Settings(database_url=database.database_url, stripe_sandbox_url=stripe_sandbox.url)
    return Syncing(engine=engine, settings=settings, clock=None)  # type: ignore[arg-type]


def made_of(control: SandboxControl) -> Counter[str]:
    """Return what a stand-in has been asked to make, by path."""
    return Counter(one["path"] for one in control.requests() if one["method"] == "POST" and one["status"] == 200)


def test_setup_run_twice_makes_one_of_each(reporting: Terminal, stripe_sandbox: SandboxControl) -> None:
    """A dry run makes nothing and says what would be made; the second run finds all by what Stripe says of it."""
    dry = reporting.type(*PRICED, "--dry-run")
    assert dry.out.splitlines() == [
        f"meter {METER}: would be made",
        "product: would be made",
        "price: would be made, 0.2 eur per unit, each month",
    ]
    assert not made_of(stripe_sandbox)

    first = reporting.type(*PRICED, "--json").json()["meters"]
    second = reporting.type(*PRICED, "--json").json()["meters"]
    assert first[0]["made"] == ["meter", "product", "price"]
    assert second == [{**first[0], "made": []}]
    assert made_of(stripe_sandbox) == {"/v1/billing/meters": 1, "/v1/products": 1, "/v1/prices": 1}
    assert reporting.type("stripe", "setup").out.splitlines() == [
        f"meter {METER} ({first[0]['meter_id']}): is there already",
        f"product ({first[0]['product_id']}): is there already",
        f"price ({first[0]['price_id']}): is there already, 0.2 eur per unit, each month",
    ]


def test_setups_at_the_same_time_make_one_of_each(syncing: Syncing, stripe_client: stripe.StripeClient) -> None:
    """Given eight that begin at once, then Stripe has one meter, one product, one price, and all name them."""
    with ThreadPoolExecutor(8) as pool:
        running = [pool.submit(admin.stripe_setup, syncing.settings, price="0.2") for _ in range(8)]
        found = {(one.meter_id, one.product_id, one.price_id) for future in running for one in future.result()}
    admin.close(syncing.settings)

    assert len(found) == 1
    listed = stripe_client.v1.billing.meters.list(), stripe_client.v1.products.list(), stripe_client.v1.prices.list()
    assert [len(page.data) for page in listed] == [1, 1, 1]


def test_what_died_half_way_is_finished(
    reporting: Terminal, stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient
) -> None:
    """Given a product whose price was never made, then the product is found by its metadata a day later."""
    stripe_sandbox.fault("error", path="/v1/prices", method="POST", count=3)
    reporting.type(*PRICED).refused(1, "Stripe")
    stripe_sandbox.advance(25 * 3_600)

    (done,) = reporting.type(*PRICED, "--json").json()["meters"]

    assert done["made"] == ["price"]
    assert [one.id for one in stripe_client.v1.products.list().data] == [done["product_id"]]


def test_a_price_never_changes(reporting: Terminal) -> None:
    """Another amount is refused with what is there; so is a price that is none."""
    assert reporting.type(*PRICED).code == 0

    other = reporting.type("stripe", "setup", "--price", "0.3")
    other.refused(
        2, "price: '0.3 eur per unit, each month'", METER, "costs 0.2 eur per unit, each month", "docs/stripe.md"
    )
    for wrong in ("a", "-1", "NaN", "0.0000000000001", "1e30"):
        reporting.type("stripe", "setup", "--price", wrong).refused(2, "price", "0.2")
    reporting.type("stripe", "setup", "--price", "1", "--currency", "euro").refused(2, "currency", "'euro'")
    reporting.type("stripe", "setup", "--meter", "nothing").refused(2, "meter", "'nothing'", "billing meter list")


def test_a_price_that_somebody_made_is_left_alone(reporting: Terminal, stripe_client: stripe.StripeClient) -> None:
    """Given one price that somebody made, then it is the meter's; our lookup key on a price of another is refused."""
    (made,) = reporting.type("stripe", "setup", "--json").json()["meters"]
    product = stripe_client.v1.products.create({"name": "theirs"}).id
    recurring: Any = {"interval": "month", "usage_type": "metered", "meter": made["meter_id"]}
    params: Any = {"product": product, "currency": "usd", "unit_amount_decimal": "7", "recurring": recurring}
    theirs = stripe_client.v1.prices.create(params).id
    (found,) = reporting.type("stripe", "setup", "--json").json()["meters"]
    assert (found["price_id"], found["price"]) == (theirs, "7 usd per unit, each month")

    other = stripe_client.v1.billing.meters.create(
        {"display_name": "x", "event_name": "other", "default_aggregation": {"formula": "sum"}}
    ).id
    recurring["meter"] = other
    params["lookup_key"] = f"billing:{METER}"
    stripe_client.v1.prices.create(params)
    reporting.type("stripe", "setup").refused(1, "lookup key", f"'billing:{METER}'")


def test_each_meter_in_use_is_set_up(reporting: Terminal) -> None:
    """Given a meter for tokens, then it has its own word, and each price is asked for by name."""
    tokens = ("llm_tokens", "--credits-per-unit", "1000", "--unit", "thousand tokens", "--sku", "llm-tokens")
    assert reporting.type("meter", "add", *tokens).out.splitlines() == [
        "meter llm_tokens: added, 1,000 credits per unit of thousand tokens",
        "counts llm-tokens",
    ]
    reporting.type("stripe", "setup", "--price", "1").refused(2, "2 meters have no price", "--meter", "llm_tokens")

    assert reporting.type("stripe", "setup", "--price", "1", "--meter", "llm_tokens").code == 0
    assert reporting.type(*PRICED).code == 2  # the other one costs 1
    assert reporting.type(*PRICED, "--meter", METER).code == 0
    prices = {one["event_name"]: one["price"] for one in reporting.type("stripe", "setup", "--json").json()["meters"]}
    assert prices == {METER: "0.2 eur per unit, each month", "llm_tokens": "1 eur per unit, each month"}
    done = reporting.type("client", "link", "acme", "--create", "--subscribe", "--json").json()
    assert done["meters"] == [METER, "llm_tokens"]


def test_a_meter_is_written_once(reporting: Terminal, syncing: Syncing) -> None:
    """The same again adds SKUs; another unit, a SKU of another meter and a unit under increments are refused."""
    given = ("meter", "add", "tokens", "--credits-per-unit", "10", "--unit", "token")
    assert reporting.type(*given, "--sku", "in").code == 0
    assert reporting.type(*given, "--sku", "in", "--json").json()["changed"] is False
    assert reporting.type(*given, "--sku", "out", "--json").json()["meter"]["skus"] == ["in", "out"]
    listed = reporting.type("meter", "list", "--json").json()
    assert [(one["event_name"], one["credits_per_unit"], one["skus"]) for one in listed] == [
        (METER, 1, []),
        ("tokens", 10, ["in", "out"]),
    ]
    assert "all others" in reporting.type("meter", "list").out

    other_unit = ("meter", "add", "tokens", "--credits-per-unit", "11", "--unit", "token")
    reporting.type(*other_unit).refused(2, "'tokens'", "10 credits per unit of token")
    reporting.type("meter", "add", "more", "--sku", "in").refused(2, "'in'", "'tokens'")
    assert "more" not in reporting.type("meter", "list").out
    reporting.type("meter", "add", "no name").refused(2, "meter", "'no name'")
    reporting.type("meter", "add", "m", "--sku", "Ä").refused(2, "sku", "'Ä'")
    reporting.type("meter", "add", "m", "--credits-per-unit", "0").refused(2, "--credits-per-unit", "0")


def test_a_customer_is_made_and_subscribed_once(
    reporting: Terminal, stripe_sandbox: SandboxControl, stripe_client: stripe.StripeClient
) -> None:
    """Given the same command twice, then Stripe has one customer and one subscription of the client."""
    reporting.type("client", "link", "acme", "--subscribe").refused(2, "'acme'", "--create")
    unpriced = reporting.type("client", "link", "acme", "--create", "--subscribe")
    unpriced.refused(2, "price", METER, "billing stripe setup --price")
    assert reporting.type(*PRICED).code == 0
    command = ("client", "link", "acme", "--create", "--subscribe", "--json")
    first, second = reporting.type(*command).json(), reporting.type(*command).json()

    assert first == {**second, "subscribed": True}
    assert second["subscribed"] is False
    (customer,) = stripe_client.v1.customers.list().data
    assert (customer.id, customer.name) == (first["customer_id"], "acme")
    assert customer.metadata is not None
    assert customer.metadata.to_dict() == {"billing_client": "acme"}
    assert [one.id for one in stripe_client.v1.subscriptions.list().data] == [first["subscription_id"]]

    stripe_client.v1.subscriptions.cancel(first["subscription_id"])
    again = reporting.type(*command).json()
    assert again["subscribed"] is True
    assert again["subscription_id"] != first["subscription_id"]
    assert "is subscribed already to billing_credits" in reporting.type("client", "link", "acme", "--subscribe").out

    assert reporting.type("meter", "add", "tokens", "--sku", "token").code == 0
    told = reporting.type("client", "link", "acme", "--subscribe")
    assert "usage waits on meters without a price: tokens (billing stripe setup --meter" in told.out


def test_creations_at_the_same_time_make_one_customer(
    reporting: Terminal, syncing: Syncing, stripe_client: stripe.StripeClient
) -> None:
    assert reporting.type("client", "show", "acme").code == 0
    with ThreadPoolExecutor(4) as pool:
        made = {future.result()[0] for future in [pool.submit(_create, syncing.settings) for _ in range(4)]}
    admin.close(syncing.settings)
    assert made == {one.id for one in stripe_client.v1.customers.list().data}
    assert len(made) == 1


def _create(settings: Settings) -> tuple[str, bool]:
    return admin.create_customer(settings, "acme")


def test_a_customer_that_stripe_has_not_is_refused(
    reporting: Terminal, stripe_client: stripe.StripeClient, stripe_sandbox: SandboxControl
) -> None:
    """One line each: unknown, deleted, nobody to ask; who must link without asking says so."""
    gone = stripe_client.v1.customers.create({"name": "gone"}).id
    stripe_client.v1.customers.delete(gone)
    reporting.type("client", "link", "acme", "cus_unknown").refused(2, "'cus_unknown'", "is no customer", "stand-in")
    reporting.type("client", "link", "acme", gone).refused(2, repr(gone), "was deleted at Stripe")
    away = {"BILLING_STRIPE_SANDBOX_URL": "http://127.0.0.1:1"}
    reporting.type("client", "link", "acme", gone, **away).refused(1, "does not answer", "--unchecked")
    assert reporting.type("client", "link", "acme", gone, "--unchecked", **away).code == 0


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ((), ("customer", "--create")),
        (("cus_a", "--customer", "cus_b"), ("customer", "'cus_b'", "'cus_a'")),
        (("cus_a", "--create"), ("create",)),
        (("--replace", "--reason", "x"), ("customer", "cus_…")),
        (("cus_a", "--replace"), ("reason",)),
        (("cus_a", "--reason", "x"), ("reason", "--replace")),
        (("cus_a", "--backdate-hours", "3"), ("backdate_hours", "--subscribe")),
    ],
)
def test_options_that_contradict_each_other_are_one_line(
    reporting: Terminal, options: tuple[str, ...], names: tuple[str, ...]
) -> None:
    reporting.type("client", "link", "acme", *options).refused(2, *names)


def test_a_deleted_customer_is_replaced_and_what_it_did_not_get_goes_along(
    reporting: Terminal, syncing: Syncing, stripe_client: stripe.StripeClient
) -> None:
    """L8: what was planned, or rejected, for the old customer is open again; what was sent stays; all is on record."""
    assert reporting.type(*PRICED).code == 0
    old = reporting.type("client", "link", "acme", "--create", "--json").json()["customer_id"]
    with Gateway(syncing.settings) as gateway:
        new = gateway.create_customer("acme")
    for state, number in (("pending", 1), ("rejected", 2), ("sent", 3), ("ambiguous", 4), ("confirmed", 5)):
        _increment(syncing, old, state, number)
    replace = ("client", "link", "acme", new, "--replace", "--reason", "customer was deleted", "--json")

    assert reporting.type(*replace).json()["moved_increments"] == 2
    assert reporting.type(*replace).json()["moved_increments"] is None

    assert reporting.type("client", "show", "acme", "--json").json()["stripe_customer"] == new
    found = syncing.read("SELECT units, state, closes_at <= now() AS closed FROM stripe_increment ORDER BY units")
    assert [(row.units, row.state, bool(row.closed)) for row in found] == [
        (1, "pending", True),
        (2, "pending", True),
        (3, "sent", False),
        (4, "ambiguous", False),
        (5, "confirmed", False),
    ]
    (kept,) = syncing.read("SELECT was, customer_id, reason, increments FROM stripe_link_change")
    assert tuple(kept) == (old, new, "customer was deleted", 2)
    reporting.type("client", "add", "globex")
    reporting.type("client", "link", "globex", new, "--replace", "--reason", "x").refused(2, "has no link")
    assert reporting.type("client", "link", "globex", "--create").code == 0
    taken = ("client", "link", "globex", new, "--replace", "--reason", "x")
    reporting.type(*taken).refused(2, repr(new), "'acme'")


def test_what_a_deleted_customer_was_not_sent_is_billed_to_the_next_one(
    reporting: Terminal, syncing: Syncing, stripe_client: stripe.StripeClient, stripe_sandbox: SandboxControl
) -> None:
    """L8: an increment that was planned for the old customer goes to the new one under another identifier, once."""
    subscribed = ("--subscribe", "--backdate-hours", "2", "--json")
    assert reporting.type(*PRICED).code == 0
    old = reporting.type("client", "link", "acme", "--create", *subscribed).json()["customer_id"]
    syncing.use("acme", 12, hour=SystemClock().now())
    assert reporting.type("sync", "plan", "--json").json()["units"] == 12
    stripe_client.v1.customers.delete(old)
    replaced = ("--create", "--replace", "--reason", "deleted")
    new = reporting.type("client", "link", "acme", *replaced, *subscribed).json()["customer_id"]

    assert reporting.type("sync", "plan", "--json").json()["reissued"] == 1
    assert reporting.type("sync", "push", "--json").json()["sent"] == 1

    assert [stripe_sandbox.total(one, METER) for one in (old, new)] == [0, 12]
    assert "confirmed 1 of 1" in reporting.type("sync", "confirm").out
    (kept,) = syncing.read("SELECT customer_id, generation, units FROM stripe_increment")
    assert tuple(kept) == (new, 2, 12)


def test_a_customer_that_is_gone_is_replaced_by_a_new_one(
    reporting: Terminal, stripe_client: stripe.StripeClient
) -> None:
    """As long as Stripe has the customer, `--create --replace` changes nothing."""
    create = ("client", "link", "acme", "--create", "--replace", "--reason", "deleted", "--json")
    first = reporting.type(*create).json()
    assert first["created"] is True
    assert reporting.type(*create).json() == {**first, "created": False}
    assert "another one is made only for one that is deleted" in reporting.type(*create[:-1]).out

    stripe_client.v1.customers.delete(first["customer_id"])
    second = reporting.type(*create).json()
    assert second["created"] is True
    assert reporting.type(*create).json() == {**second, "created": False}


def test_a_link_is_moved_for_a_reason(syncing: Syncing, reporting: Terminal) -> None:
    """From Python as well; the same rules."""
    assert reporting.type("client", "link", "acme", "--create").code == 0
    with pytest.raises(InvalidValue, match="reason"):
        admin.move_client(syncing.settings, "acme", "cus_other", reason=" ", unchecked=True)
    assert admin.move_client(syncing.settings, "acme", "cus_other", reason="mistyped", unchecked=True) == 0
    with pytest.raises(Conflict, match="which stays"):
        admin.link_client(syncing.settings, "acme", "cus_third", unchecked=True)
    admin.close(syncing.settings)


def test_invoices_are_shown(reporting: Terminal, stripe_sandbox: SandboxControl) -> None:
    reporting.type("stripe", "invoices", "acme").refused(2, "'acme'", "--create")
    assert reporting.type(*PRICED).code == 0
    assert reporting.type("client", "link", "acme", "--create", "--subscribe").code == 0
    stripe_sandbox.advance(32 * 24 * 3_600)

    newest = reporting.type("stripe", "invoices", "acme", "--json").json()[0]

    assert newest["currency"] == "eur"
    assert [(line["quantity"], line["amount"]) for line in newest["lines"]] == [(0, 0)]
    assert newest["invoice_id"] in reporting.type("stripe", "invoices", "acme").out


def _increment(syncing: Syncing, customer_id: str, state: str, number: int) -> None:
    """Write an increment of as many units as its number, without parts."""
    statement = """
        INSERT INTO stripe_increment (client_id, customer_id, event_name, period_start, period_end, units, event_at,
                                      identifier, state, closes_at)
        VALUES ('acme', :customer_id, :meter, :noon, :noon + interval '30 days', :number,
                :noon + :number * interval '1 minute', 'b1-' || :number, :state, 'infinity')
    """
    given = {"customer_id": customer_id, "meter": METER, "noon": NOON, "number": number, "state": state}
    with syncing.engine.begin() as connection:
        connection.execute(sqlalchemy.text(statement), given)
