"""`billing stripe setup`, `billing stripe invoices`, `billing meter`: as a user types them."""

from __future__ import annotations

from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import stripe

from billing import admin
from billing.core.settings import Settings
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.integration.syncing import METER, Syncing
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
        "SKU llm-tokens has no price yet: billing price set llm-tokens CREDITS --unit UNIT",
    ]
    assert reporting.type("price", "set", "llm-tokens", "1", "--unit", "token").code == 0
    assert reporting.type("meter", "add", *tokens, "--json").json()["without_price"] == []
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


def test_invoices_are_shown(reporting: Terminal, stripe_sandbox: SandboxControl) -> None:
    reporting.type("stripe", "invoices", "acme").refused(2, "'acme'", "--create")
    assert reporting.type(*PRICED).code == 0
    assert reporting.type("client", "link", "acme", "--create", "--subscribe").code == 0
    stripe_sandbox.advance(32 * 24 * 3_600)

    newest = reporting.type("stripe", "invoices", "acme", "--json").json()[0]

    assert newest["currency"] == "eur"
    assert [(line["quantity"], line["amount"]) for line in newest["lines"]] == [(0, 0)]
    assert newest["invoice_id"] in reporting.type("stripe", "invoices", "acme").out
