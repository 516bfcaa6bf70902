"""How many parked tasks a bucket pays together, in their order, as `reserve` would take them one by one (L1)."""

from __future__ import annotations

import dataclasses
import random

import pytest

from billing.core.ids import new_nonce, run_id
from billing.core.settings import Settings
from billing.credits.options import options_of
from billing.credits.terms import ClientState, ClientTerms, GrantTerms
from billing.credits.twin.buckets import Twin
from billing.credits.twin.memory import Memory
from billing.credits.values import Balance, GrantBalance, Hold, ReserveOutcome
from billing.parking.affordable import affordable

SKUS = ("page", "image", "sound")


def balance_of(available: int, **terms: object) -> Balance:
    grant = GrantBalance(grant_id=1, granted=available, available=available)
    given = ClientTerms(**terms)  # type: ignore[arg-type]
    return Balance(
        client_id="acme",
        epoch=1,
        grants=(grant,),
        order=(1,),
        debt=0,
        owed=0,
        available=available,
        held=0,
        spent=0,
        granted=available,
        terms=given,
    )


def reserves(twin: Twin, sku: str, credits_: int) -> bool:
    hold = Hold(
        run_id=run_id("acme", new_nonce(), nesting=0, nonce="", at_milliseconds=0),
        client_id="acme",
        sku=sku,
        credits=credits_,
        token="t",
        price_version=1,
        attempt=1,
        head=b"{}",
        lines=b"",
    )
    return twin.reserve(hold).outcome is ReserveOutcome.HELD


@pytest.mark.parametrize("seed", range(200))
def test_as_many_as_reserve_admits_one_after_the_other(seed: int) -> None:
    """Given any grants, overdraft and needs, then the count is that of reserves admitted before the first refused."""
    chance, settings = random.Random(seed), Settings(shards=1)
    twin = Twin(Memory(), **options_of(settings))
    twin.verify(0, expected=None)
    twin.open_client("acme")
    twin.set_terms("acme", ClientTerms(overdraft_limit=chance.choice((0, 0, 15))))
    for grant_id in range(1, chance.randint(2, 6)):
        skus = tuple(sorted(chance.sample(SKUS, chance.randint(0, 2))))
        twin.grant("acme", grant_id, chance.randint(1, 40), GrantTerms(priority=chance.randint(1, 3), skus=skus))
    under_way = [(chance.choice(SKUS), chance.randint(0, 10)) for _ in range(chance.randint(0, 2))]
    waiting = [(chance.choice(SKUS), chance.randint(0, 25)) for _ in range(chance.randint(1, 12))]
    before = twin.balances(["acme"])["acme"]
    known: dict[str, int] = {}
    for sku, credits_ in sorted(under_way):
        if reserves(twin, sku, credits_):
            known[sku] = known.get(sku, 0) + credits_

    found = affordable(before, known, waiting)

    admitted = 0
    while admitted < len(waiting) and reserves(twin, *waiting[admitted]):
        admitted += 1
    assert found == admitted


def test_what_cannot_be_paid_keeps_those_behind_it_waiting() -> None:
    """Given a big task before small ones, then none of these starts, or the big one would starve."""
    assert affordable(balance_of(50), {}, [("page", 10), ("page", 45), ("page", 10)]) == 1


def test_what_is_under_way_is_taken_first() -> None:
    """Given credits that tasks under way will reserve, then only the rest is to be had; more than all is nothing."""
    assert affordable(balance_of(50), {"page": 30}, [("page", 10)] * 5) == 2
    assert affordable(balance_of(50), {"page": 300}, [("page", 10)] * 5) == 0


def test_a_client_that_may_not_work_or_owes_too_much_starts_nothing() -> None:
    """Given a suspended client, or debt beyond the limit, then not even what costs nothing starts."""
    assert affordable(balance_of(50, state=ClientState.SUSPENDED), {}, [("page", 0)]) == 0
    assert affordable(balance_of(50, overdraft_limit=0), {}, [("page", 0)]) == 1
    assert affordable(dataclasses.replace(balance_of(50), owed=1), {}, [("page", 0)]) == 0
