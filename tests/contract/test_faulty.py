"""The small form of `make operations ARGS=--faults`, and that it finds what it is there to find."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from billing.core.shards import shard_of
from billing.credits.keys import shard_keys
from billing.credits.terms import ClientTerms, GrantTerms
from billing.credits.values import StoredHold
from tests.contract.conftest import binary_or_skip
from tests.contract.faulty import checks, ledger, running
from tests.contract.faulty.conductor import Conductor
from tests.contract.faulty.values import SHARDS, Breach, Row
from tests.contract.making import a_run
from tests.contract.servers import BINARIES, started
from tests.waiting import wait_until

pytestmark = pytest.mark.raw("a server that is killed, and its files")


@pytest.mark.parametrize("kind", BINARIES)
def test_every_law_holds_though_servers_die_and_lose_and_answers_are_lost(kind: str) -> None:
    """Given every kind of fault, when all is at rest, then no credit is lost or made (L1, L2), nor a charge (L3)."""
    binary_or_skip(kind)
    assert running.run(1, 3_000, 2, kind, cut_every=40)


def test_a_fault_that_never_happened_is_named() -> None:
    """A run proves nothing of a fault that it has not met."""
    counts = Counter(dict.fromkeys(running.ASKED_FOR, 1))
    assert running.missing(counts) == []
    del counts["killed, and back empty"]
    assert running.missing(counts) == ["killed, and back empty"]


def conducted(found: type[Conductor] = Conductor) -> Counter[str]:
    """Work through one round by one process."""
    with started(binary_or_skip("valkey"), *running.OPTIONS) as server:
        conductor = found(server, 1, 1)
        try:
            conductor.begin()
            conductor.round(1_000)
            return conductor.end()
        finally:
            conductor.close()


def test_one_run_that_the_log_misses_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """L3: a run that succeeded is in the log."""
    write = ledger.Ledger.write
    lost: list[bytes] = []

    def forgetful(self: ledger.Ledger, bodies: list[bytes], now_ms: int) -> None:
        lost[:] = lost or [str(json.loads(bodies[0])["run_id"]).encode()]
        write(self, [body for body in bodies if lost[0] not in body], now_ms)

    monkeypatch.setattr(ledger.Ledger, "write", forgetful)
    with pytest.raises(Breach, match=r"L3: run \S+ succeeded, and is not in the log"):
        conducted()


def test_one_credit_too_many_is_found() -> None:
    """L2: what a bucket has is what it was granted, less what it has paid and lent."""

    class Generous(Conductor):
        def rested(self) -> None:
            for client_id in self.ledger.log.epochs:
                name = shard_keys(shard_of(client_id, SHARDS)).bucket + client_id
                bucket = self.server.hand.get(name).decode()
                if found := re.search(r" (\d+):(\d+):", bucket):
                    more = f" {found[1]}:{int(found[2]) + 1}:"
                    self.server.hand.set(name, bucket.replace(found[0], more, 1))
                    return

    with pytest.raises(Breach, match=r"L2: "):
        conducted(Generous)


@pytest.mark.parametrize(
    ("terms", "shares", "found"),
    [
        (GrantTerms(expires_ms=1_001, skus=("page",)), {1: 30, 0: 20}, None),
        (GrantTerms(expires_ms=1_000), {1: 50}, "L1: grant 1 of"),
        (GrantTerms(skus=("image",)), {1: 50}, "L1: grant 1 of"),
        (GrantTerms(), {1: 29, 0: 21}, "L1: acme: holds have 21 of an overdraft of 20"),
    ],
)
def test_a_hold_that_was_lent_what_it_could_not_use_is_found(
    terms: GrantTerms, shares: dict[int, int], found: str | None
) -> None:
    """L1: usable are grants for the run's SKU that had not expired when it came, and overdraft up to the limit."""
    books = ledger.Ledger()
    grant = Row(kind="grant", row_id=1, client_id="acme", grant_id=1, credits=50, terms=terms)
    books.enter([grant, Row(kind="terms", row_id=2, client_id="acme", client=ClientTerms(overdraft_limit=20))])
    hold = StoredHold(
        run_id=a_run(),
        client_id="acme",
        sku="page",
        token="first",
        credits=50,
        grants=shares,
        price_version=1,
        attempt=1,
        created_ms=1_000,
        deadline_ms=2_000,
        head=b"",
        lines=b"",
        epoch=1,
    )
    if found is None:
        checks.check_lenders(books, "acme", [hold])
    else:
        with pytest.raises(Breach, match=found):
            checks.check_lenders(books, "acme", [hold])


def test_an_admission_while_a_shard_recovers_is_found() -> None:
    """L6: a server that trusts what it came back with is caught by whoever works on it."""

    class Trusting(Conductor):
        def restarted(self) -> None:
            for number in range(SHARDS):
                _, server = self.calls.surely(self.calls.buckets.server_of, number)
                self.server.hand.set(shard_keys(number).server, server)
            wait_until(lambda: self.fleet.hear(0.1) and False, "a process is admitted")

    # A call that was sent before the server died, and whose retry found the new one, sees it by what was lost.
    with pytest.raises(Breach, match=r"L6: [\w :]+ on shard \d, which recovers, answered|L[45]: "):
        conducted(Trusting)


def without_holds(plan: Callable[..., Any]) -> Callable[..., Any]:
    """Return a plan of a bucket that forgets the holds."""
    return lambda self, client_id, _, repaid, now_ms: plan(self, client_id, [], repaid, now_ms)


def without_charges(plan: Callable[..., Any]) -> Callable[..., Any]:
    """Return a plan of a bucket that forgets what one grant has paid."""

    def planned(self: ledger.Ledger, client_id: str, *rest: Any) -> Any:
        spent = self.log.spent[client_id]
        self.log.spent[client_id] = dict(list(spent.items())[1:])
        try:
            return plan(self, client_id, *rest)
        finally:
            self.log.spent[client_id] = spent

    return planned


@pytest.mark.parametrize("forget", [without_holds, without_charges])
def test_a_rebuild_that_forgets_something_is_found(forget: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """L6: balances and holds come back to the same values."""
    monkeypatch.setattr(ledger.Ledger, "plan", forget(ledger.Ledger.plan))
    with pytest.raises(Breach, match=r"L[1256]: "):
        conducted()
