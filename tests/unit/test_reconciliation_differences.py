"""What a client's books say of each other, judged without a server: each way to differ is named, by its law."""

from __future__ import annotations

import pytest

from billing.credits.values import Balance, GrantBalance
from billing.reconciliation.facts import GrantFacts, InvoiceFacts, LedgerFacts
from billing.reconciliation.laws import grants, planned


def bucket(*found: tuple[int, int]) -> Balance:
    """Return a bucket with these grants (id, credits)."""
    own = tuple(GrantBalance(grant_id=grant_id, granted=credits_, available=credits_) for grant_id, credits_ in found)
    total = sum(credits_ for _, credits_ in found)
    return Balance(
        client_id="acme",
        epoch=1,
        grants=own,
        order=tuple(grant_id for grant_id, _ in found),
        debt=0,
        owed=0,
        available=total,
        held=0,
        spent=0,
        granted=total,
    )


def ledger(*found: tuple[int, int], applied: bool = True) -> LedgerFacts:
    """Return a ledger with these grants (id, credits), each with its one entry."""
    facts = {
        grant_id: GrantFacts(credits=credits_, applied=applied, entries=1, entered=credits_)
        for grant_id, credits_ in found
    }
    return LedgerFacts(client_id="acme", epoch=1, grants=facts, spent={})


@pytest.mark.parametrize(
    ("in_redis", "known", "said"),
    [
        ([(1, 100)], [(1, 100), (2, 50)], "Redis says nothing, credit_grant says 50"),
        ([(1, 100), (2, 50)], [(1, 100)], "Redis says 50, credit_grant says nothing"),
        ([(1, 101)], [(1, 100)], "Redis says 101, credit_grant says 100"),
        ([(1, 99)], [(1, 100)], "Redis says 99, credit_grant says 100"),
    ],
)
def test_a_grant_that_one_side_lacks_or_has_otherwise_is_named(
    in_redis: list[tuple[int, int]], known: list[tuple[int, int]], said: str
) -> None:
    """L2: given a ledger whose grants are all noted as applied, then the bucket has each, in full, and no other."""
    assert [one.found for one in grants.in_bucket(bucket(*in_redis), ledger(*known))] == [said]


def test_a_grant_that_is_on_its_way_is_no_difference() -> None:
    assert not list(grants.in_bucket(bucket(), ledger((1, 100), applied=False)))
    assert not list(grants.in_bucket(bucket((1, 100)), ledger((1, 100))))


@pytest.mark.parametrize("carried", [99, 101])
def test_what_is_planned_is_what_increments_carry(carried: int) -> None:
    """L8: in either direction: usage that no increment carries, and increments of no usage."""

    def found(carries: int) -> list[str]:
        by_state = {"sent": 90, "pending": carries - 90}
        facts = InvoiceFacts(client_id="acme", credits=120, planned=100, logged=120, by_state=by_state)
        return [one.found for one in planned.differences(facts)]

    assert found(100) == []
    assert found(carried) == [f"usage_rollup says 100 planned, the increments carry {carried} credits"]
