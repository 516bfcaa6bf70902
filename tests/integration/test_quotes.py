"""A quote is what is charged then, and what would be answered now; to ask changes nothing (L1)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest

import billing
from billing import BillableTask, InsufficientCredits, InvalidValue, UnknownClient, UnknownSku, admin
from billing.core.errors import BillingError, ClientInactive, Recovering, Rejected
from billing.credits.buckets import Buckets
from billing.credits.granting import TermsOutcome
from billing.credits.terms import ClientState, ClientTerms, GrantTerms
from billing.credits.values import GrantOutcome, ReserveOutcome
from billing.task.attachment import attachment_of
from billing.task.quoting import Quote
from tests.fleet.harness import Fleet
from tests.fleet.tasks import OTHER_SKU, SKU
from tests.terminal import Terminal

pytestmark = pytest.mark.integration


@pytest.fixture
def shop(fleet: Fleet) -> Iterator[Fleet]:
    """Use a fleet from this very process, nothing running, and leave no connection behind."""
    yield fleet
    attachment = attachment_of(fleet.app)
    attachment.lifecycle.close()
    attachment.runtime.close()


def quote(fleet: Fleet, client_id: str, sku: str = SKU, quantity: int = 1) -> Quote:
    """Ask with the settings of the test's fleet."""
    return billing.quote(client_id, sku, quantity, app=fleet.app)


@pytest.mark.parametrize("quantity", [0, 1, 9, 10, 11])
def test_a_quote_is_what_is_charged_or_refused_then(shop: Fleet, quantity: int) -> None:
    """Given 100 credits, when a quantity is quoted and then reserved, then both say the same."""
    shop.client("acme", 100)

    quoted = quote(shop, "acme", quantity=quantity)

    assert (quoted.available, quoted.owed, quoted.price_version) == (100, 0, 2)
    assert quoted.admitted is (quoted.outcome is ReserveOutcome.HELD)
    if quoted.admitted:
        with billing.reserve("acme", SKU, quantity, app=shop.app) as run:
            assert run.credits_held == quoted.required
        assert run.credits_charged == quoted.credits == quantity * 10
    else:
        with pytest.raises(InsufficientCredits) as refused, billing.reserve("acme", SKU, quantity, app=shop.app):
            pytest.fail("the block began")
        assert (refused.value.required, refused.value.available) == (quoted.required, quoted.available)


def test_who_owes_is_not_admitted_not_even_for_nothing(shop: Fleet) -> None:
    """Given a client that owes, then a quote says what a reserve says (L1)."""
    shop.client("acme", 20)
    with billing.reserve("acme", SKU, app=shop.app) as run:
        run.record(5)

    quoted = quote(shop, "acme", quantity=0)

    assert (quoted.available, quoted.owed, quoted.outcome) == (0, 30, ReserveOutcome.INSUFFICIENT)
    with pytest.raises(InsufficientCredits), billing.reserve("acme", SKU, 0, app=shop.app):
        pytest.fail("the block began")


SOON = 2**52
TERMS: dict[str, tuple[list[GrantTerms], ClientTerms]] = {
    "nothing": ([], ClientTerms()),
    "two grants": ([GrantTerms(priority=5), GrantTerms(expires_ms=SOON)], ClientTerms()),
    "one is over": ([GrantTerms(), GrantTerms(expires_ms=1)], ClientTerms()),
    "for this SKU": ([GrantTerms(skus=(SKU, OTHER_SKU))], ClientTerms()),
    "for another SKU": ([GrantTerms(skus=(OTHER_SKU,)), GrantTerms()], ClientTerms()),
    "overdraft": ([GrantTerms()], ClientTerms(overdraft_limit=35)),
    "overdraft alone": ([], ClientTerms(overdraft_limit=35)),
    "suspended": ([GrantTerms()], ClientTerms(state=ClientState.SUSPENDED)),
    "closed": ([GrantTerms()], ClientTerms(state=ClientState.CLOSED)),
}


class Undo(Exception):
    """Ends a block so that nothing is charged."""


@pytest.mark.parametrize("case", TERMS)
def test_a_quote_says_what_a_reserve_says_under_any_terms(shop: Fleet, case: str) -> None:
    """Given grants of 40 credits and a client with terms, then quote and reserve agree on every quantity (L1)."""
    admin.add_client(shop.settings, "acme")
    grants, terms = TERMS[case]
    for number, own in enumerate(grants, start=1):
        assert shop.buckets.grant("acme", number, 40, own) is GrantOutcome.GRANTED
    assert shop.buckets.set_terms("acme", terms) is TermsOutcome.SET

    def answer(quantity: int) -> tuple[str, int | None]:
        try:
            with contextlib.suppress(Undo), billing.reserve("acme", SKU, quantity, app=shop.app):
                raise Undo
        except InsufficientCredits as refused:
            return "INSUFFICIENT", refused.available
        except ClientInactive as refused:
            return refused.state.upper(), None
        return "HELD", None

    for quantity in range(10):
        quoted = quote(shop, "acme", quantity=quantity)
        said, available = answer(quantity)
        assert quoted.outcome.name == said
        assert available in (None, quoted.available)


def test_a_task_quotes_its_own_call(shop: Fleet) -> None:
    """Given tasks with quantities and further SKUs, then a call's quote is of what it charges, and of what it holds."""
    shop.client("acme", 100)
    tasks: Any = shop.app.tasks

    metered = tasks["metered"].quote("acme", 4, used=None)
    lines = tasks["lines"].quote(client_id="acme", extra=2)

    assert (metered.sku, metered.quantity, metered.credits, metered.required) == (SKU, 4, 40, 40)
    assert (lines.sku, lines.quantity, lines.credits, lines.required, lines.admitted) == (SKU, 1, 10, 22, True)
    assert not tasks["metered"].quote("acme", 11, None).admitted
    with pytest.raises(InvalidValue, match="has no client"):
        tasks["metered"].quote(most=1, used=None)

    def free() -> None:
        """Do nothing, for nothing."""

    unbilled: Any = shop.app.task(base=BillableTask, shared=False, name="unbilled")(free)
    with pytest.raises(Rejected, match="is not billed"):
        unbilled.quote()


def test_a_quote_knows_the_most_that_a_block_may_use(shop: Fleet) -> None:
    """Given a block that may use more than its quantity, then its quote is of what it charges, and of what it holds."""
    shop.client("acme", 100)
    for reserve, required in ((9, 90), (11, 110), ({OTHER_SKU: 5}, 25), ({OTHER_SKU: 31}, 103)):
        quoted = billing.quote("acme", SKU, 1, reserve=reserve, app=shop.app)
        assert (quoted.credits, quoted.required, quoted.admitted) == (10, required, required <= 100)
        held: list[int] = []
        block = billing.reserve("acme", SKU, 1, reserve=reserve, app=shop.app)
        with contextlib.suppress(Undo, InsufficientCredits), block as run:
            held.append(run.credits_held)
            raise Undo
        assert held == ([required] if quoted.admitted else [])


def test_what_would_be_raised_is_raised(shop: Fleet) -> None:
    """Given nobody, no price, a bad value, a closed or a lost bucket, then one line each."""
    shop.client("acme", 100)
    cases: list[tuple[type[BillingError], tuple[Any, ...]]] = [
        (UnknownClient, ("nobody",)),
        (UnknownSku, ("acme", "no-such")),
        (InvalidValue, ("acme", "No SKU")),
        (InvalidValue, ("two words",)),
        (InvalidValue, ("acme", SKU, 1.5)),
    ]
    for kind, arguments in cases:
        with pytest.raises(kind) as refused:
            quote(shop, *arguments)
        assert "\n" not in str(refused.value)
    for shard in range(4):
        shop.buckets.close(shard)
    with pytest.raises(Recovering):
        quote(shop, "acme")


def test_a_full_outbox_is_said(shop: Fleet, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a broker that was away for long, then the quote says that nothing is admitted (L9)."""
    shop.client("acme", 100)
    monkeypatch.setattr(Buckets, "outbox_depth", lambda *_: shop.settings.outbox_entries_max)
    assert quote(shop, "acme").outcome is ReserveOutcome.OUTBOX_FULL


@pytest.fixture
def counter(terminal: Terminal) -> Terminal:
    """Open a terminal on a migrated database with a client that has 100 credits, and one price."""
    for command in ("client add acme", "price set page 5 --unit page", "grant acme 100 --key first"):
        assert terminal.type(*command.split()).code == 0
    return terminal


def test_the_command_answers_as_python_does_and_changes_nothing(counter: Terminal) -> None:
    """Given 100 credits and a price of 5, then text, JSON, and exit code 1 only where that was asked for."""
    before = counter.books()

    assert counter.type("quote", "acme", "page").out == (
        "1 of page costs 5 credits (price book version 1); client acme has 100: it would be admitted now\n"
    )
    assert counter.type("quote", "acme", "page", "20", "--check").code == 0
    refused = counter.type("quote", "acme", "page", "21")
    assert (refused.code, "it would be refused now" in refused.out) == (0, True)
    assert counter.type("quote", "acme", "page", "21", "--check").code == 1
    assert counter.type("quote", "acme", "page", "3", "--json").json() == {
        "client_id": "acme",
        "sku": "page",
        "quantity": 3,
        "credits": 15,
        "required": 15,
        "price_version": 1,
        "available": 100,
        "owed": 0,
        "outcome": "HELD",
        "admitted": True,
    }

    assert counter.books() == before
    counter.type("quote", "nobody", "page").refused(2, "nobody")
    counter.type("quote", "acme", "no-such").refused(2, "no-such")
    counter.type("quote", "acme", "page", "-1").refused(2, "quantity", "-1")
    counter.type("quote", "acme", "page", BILLING_REDIS_URL="redis://127.0.0.1:1/0").refused(1, "does not answer")
