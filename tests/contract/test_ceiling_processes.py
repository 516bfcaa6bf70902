"""The ceiling among processes (L1): a hundred of them, each with its own connection, want the same credits at once."""

from __future__ import annotations

import multiprocessing
from collections import Counter
from collections.abc import Sequence
from multiprocessing.context import ForkServerContext
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier

import pytest

from billing.credits.terms import ClientTerms, GrantTerms
from billing.credits.values import Balance
from billing.credits.verbs import Verbs
from tests.contract.laws import assert_laws
from tests.contract.making import a_hold, a_run
from tests.contract.servers import Server, buckets_at

ON_CLUSTER = False
pytestmark = pytest.mark.raw("processes that share a server")
PROCESSES = 100
CREDITS = 75
#: How long one of them waits for the others; it bounds a failure, and is never waited for (L9).
GATE_SECONDS = 120

Answers = SimpleQueue[tuple[str, str]]


@pytest.fixture(scope="module")
def forks() -> ForkServerContext:
    """Return what makes processes that have everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def reserve(url: str, number: int, sku: str, gate: Barrier, answers: Answers) -> None:
    """Connect, wait for all the others, reserve once, and tell the answer."""
    buckets = buckets_at(url)
    buckets.time_ms()
    gate.wait()
    answers.put((sku, buckets.reserve(a_hold(a_run(task_id=f"process-{number}"), CREDITS, sku=sku)).outcome.name))


def at_once(server: Server, forks: ForkServerContext, skus: Sequence[str]) -> Counter[tuple[str, str]]:
    """Let a process for each SKU reserve, none before all are connected; return how often each got which answer."""
    gate, answers = forks.Barrier(len(skus), timeout=GATE_SECONDS), forks.SimpleQueue()
    processes = [
        forks.Process(target=reserve, args=(server.url, number, sku, gate, answers)) for number, sku in enumerate(skus)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    assert [process.exitcode for process in processes] == [0] * len(skus)
    found = Counter(answers.get() for _ in skus)
    answers.close()
    return found


def balance_of(buckets: Verbs) -> Balance:
    """Return a lawful balance."""
    balance = buckets.balance("acme")
    assert balance is not None
    assert_laws(balance)
    return balance


def test_of_500_credits_exactly_6_are_admitted(server: Server, buckets: Verbs, forks: ForkServerContext) -> None:
    """Given 500 credits in two grants, when 100 processes reserve 75 at once, then 6 are admitted and 50 are left."""
    buckets.open_client("acme")
    buckets.grant("acme", 1, 300)
    buckets.grant("acme", 2, 200)
    found = at_once(server, forks, ["page"] * PROCESSES)
    assert found == {("page", "HELD"): 6, ("page", "INSUFFICIENT"): 94}
    balance = balance_of(buckets)
    assert (balance.available, balance.held) == (50, 450)


def test_what_has_expired_admits_nobody(server: Server, buckets: Verbs, forks: ForkServerContext) -> None:
    """Given 500 credits of which 200 ended a moment ago, when 100 processes reserve 75, then 4 are admitted."""
    buckets.open_client("acme")
    buckets.grant("acme", 1, 200, GrantTerms(priority=1, expires_ms=buckets.time_ms()))
    buckets.grant("acme", 2, 300)
    found = at_once(server, forks, ["page"] * PROCESSES)
    assert found == {("page", "HELD"): 4, ("page", "INSUFFICIENT"): 96}
    balance = balance_of(buckets)
    assert (balance.available, balance.held, balance.expired) == (0, 300, 200)


def test_overdraft_admits_up_to_its_limit(server: Server, buckets: Verbs, forks: ForkServerContext) -> None:
    """Given 300 credits and 200 that may be owed, when 100 processes reserve 75, then 6 are admitted."""
    buckets.open_client("acme")
    buckets.grant("acme", 1, 300)
    buckets.set_terms("acme", ClientTerms(overdraft_limit=200))
    found = at_once(server, forks, ["page"] * PROCESSES)
    assert found == {("page", "HELD"): 6, ("page", "INSUFFICIENT"): 94}
    balance = balance_of(buckets)
    assert (balance.available, balance.held, balance.owed, balance.room) == (0, 450, 150, 150)


def test_a_restricted_grant_admits_its_skus_alone(server: Server, buckets: Verbs, forks: ForkServerContext) -> None:
    """Given 300 credits for pages and 200 for all, when 50 processes want each, then 2 images at most, 6 in all."""
    buckets.open_client("acme")
    buckets.grant("acme", 1, 300, GrantTerms(skus=("page",)))
    buckets.grant("acme", 2, 200)
    found = at_once(server, forks, ["page", "image"] * (PROCESSES // 2))
    assert found["page", "HELD"] + found["image", "HELD"] == 6
    assert found["page", "HELD"] >= 4
    assert found["page", "INSUFFICIENT"] + found["image", "INSUFFICIENT"] == 94
    assert balance_of(buckets).held == 450
