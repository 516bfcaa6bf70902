"""The ceiling holds at once, too, however a client's usable credits come about (L1)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from billing.credits.terms import ClientTerms, GrantTerms
from billing.credits.values import ReserveOutcome
from billing.credits.verbs import Verbs
from tests.contract.laws import assert_laws
from tests.contract.making import a_hold, a_run
from tests.contract.servers import FUTURE_MS, Server


@pytest.fixture(scope="module")
def crowd(server: Server) -> list[Verbs]:
    """Return buckets with a hundred clients of their own, which connect once for this module."""
    return [server.buckets(client=server.client(), verified=False) for _ in range(100)]


@pytest.mark.parametrize("case", ["plain", "expired", "overdraft", "restricted"])
def test_l1_of_100_connections_that_reserve_75_of_500_at_once_exactly_6_are_admitted(
    buckets: Verbs, server: Server, crowd: list[Verbs], case: str
) -> None:
    """Given 500 usable credits, however they come about, when 100 connections want 75 each, then 6 get them."""
    buckets.open_client("acme")
    match case:
        case "plain":
            buckets.grant("acme", 1, 500)
        case "expired":
            buckets.grant("acme", 1, 9_000, GrantTerms(priority=1, expires_ms=buckets.time_ms() - 1))
            buckets.grant("acme", 2, 500, GrantTerms(expires_ms=FUTURE_MS))
        case "overdraft":
            buckets.grant("acme", 1, 300)
            buckets.set_terms("acme", ClientTerms(overdraft_limit=200))
        case "restricted":
            buckets.grant("acme", 1, 9_000, GrantTerms(priority=1, skus=("image",)))
            buckets.grant("acme", 2, 500)

    def reserve(number: int) -> ReserveOutcome:
        return crowd[number].reserve(a_hold(a_run(task_id=str(number)), 75)).outcome

    with ThreadPoolExecutor(100) as threads:
        outcomes = list(threads.map(reserve, range(100)))
    assert outcomes.count(ReserveOutcome.HELD) == 6
    assert outcomes.count(ReserveOutcome.INSUFFICIENT) == 94
    balance = buckets.balance("acme")
    assert balance is not None
    assert_laws(balance)
    assert balance.held == 450
