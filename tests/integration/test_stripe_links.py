"""`billing client link --create|--subscribe|--replace`: who pays for a client at Stripe, as a user types it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

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
