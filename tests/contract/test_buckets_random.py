"""Random walks of 10,000 operations per server: after each one bucket and model agree and the laws hold."""

from __future__ import annotations

import random
from collections import Counter
from uuid import UUID

import pytest

from billing.credits.buckets import Buckets
from billing.credits.values import Hold, Settlement
from tests.contract.making import a_hold, a_run, a_settlement
from tests.contract.model import Model, ModelBucket, assert_laws

STEPS = 2_000
CLIENTS = ("acme", "globex", "initech")


class Walk:
    """One seeded walk: each step is done to the bucket and to the model, and the answers are compared."""

    def __init__(self, buckets: Buckets, seed: int) -> None:
        self.buckets = buckets
        self.model = Model()
        self.random = random.Random(seed)
        self.done: Counter[str] = Counter()
        self.runs: list[tuple[str, UUID]] = []
        self.holds: dict[UUID, Hold] = {}
        self.settlements: dict[UUID, Settlement] = {}
        self.grants = 0
        self.touched = ""
        self.names = [*["reserve"] * 6, *["again"] * 2, *["settle"] * 5]
        self.names += ["settle_again", "release", "release", "grant", "renew"]

    def step(self) -> None:
        """Take one step and compare."""
        client_id = self.random.choice(CLIENTS)
        if client_id not in self.model.buckets and self.random.random() < 0.5:
            self.buckets.open_client(client_id)
            self.model.buckets[client_id] = ModelBucket()
        outcome = getattr(self, self.random.choice(self.names))(client_id)
        self.done[outcome] += 1
        for name in {client_id, self.touched} & self.model.buckets.keys():
            balance = self.buckets.balance(name)
            assert balance is not None
            assert_laws(balance)
            model = self.model.buckets[name]
            assert balance.grants == self.model.grants(name), name
            assert (balance.owed, balance.debt) == (model.owed + model.room, model.debt), name
            own = (balance.room, balance.adjusted_debt, balance.terms)
            assert own == (model.room, model.adjusted_debt, model.client), name

    def amount(self) -> int:
        """Return an amount: mostly small, sometimes nothing, sometimes too much."""
        return self.random.choice((0, 1, *[self.random.randint(1, 60) for _ in range(9)], 400))

    def a_known_run(self, client_id: str) -> tuple[str, UUID]:
        """Return one of the last runs, or one that nobody has seen."""
        if not self.runs or self.random.random() < 0.05:
            return client_id, a_run(client_id, f"unseen-{self.random.random()}")
        self.touched, run = self.random.choice(self.runs[-30:])
        return self.touched, run

    def reserve(self, client_id: str) -> str:
        """Reserve for a new run."""
        run = a_run(client_id, f"task-{len(self.runs)}")
        self.runs.append((client_id, run))
        return self._reserve(a_hold(run, self.amount(), client_id=client_id, token="token-0"))

    def again(self, client_id: str) -> str:
        """Reserve for a run once more: the same call, another attempt, another need or another SKU."""
        client_id, run = self.a_known_run(client_id)
        token = f"token-{self.random.randint(0, 2)}"
        sku = self.random.choice(("page", "page", "page", "page", "other"))
        return self._reserve(a_hold(run, self.amount(), client_id=client_id, token=token, sku=sku))

    def _reserve(self, hold: Hold) -> str:
        self.holds[hold.run_id] = hold
        reply = self.buckets.reserve(hold)
        expected, credits_ = self.model.reserve(hold)
        assert reply.outcome.value == expected, hold
        assert credits_ == (reply.available if expected == "INSUFFICIENT" else reply.held), hold
        return f"reserve {expected}"

    def settle(self, client_id: str) -> str:
        """Settle a run: less than was held, as much, or more; held or not."""
        client_id, run = self.a_known_run(client_id)
        lines = self.random.choice((1, 1, 2, 3))
        return self._settle(a_settlement(run, *[self.amount() // lines for _ in range(lines)], client_id=client_id))

    def settle_again(self, client_id: str) -> str:
        """Send a settlement again."""
        if not self.settlements:
            return self.settle(client_id)
        settlement = self.random.choice(list(self.settlements.values())[-20:])
        self.touched = settlement.client_id
        return self._settle(settlement)

    def _settle(self, settlement: Settlement) -> str:
        reply = self.buckets.settle(settlement)
        expected, late, debt = self.model.settle(settlement)
        assert (reply.outcome.value, reply.late, reply.debt) == (expected, late, debt), settlement
        if expected == "SETTLED":
            self.settlements[settlement.run_id] = settlement
        return f"settle {expected}{' late' if late else ''}{' debt' if debt else ''}"

    def release(self, client_id: str) -> str:
        """Release a run, with its token or a stale one."""
        client_id, run = self.a_known_run(client_id)
        token = f"token-{self.random.choice((0, 0, 1, 2))}"
        outcome = self.buckets.release(client_id, run, token).value
        assert outcome == self.model.release(run, token)
        return f"release {outcome}"

    def renew(self, client_id: str) -> str:
        """Renew a run."""
        client_id, run = self.a_known_run(client_id)
        (outcome,) = self.buckets.renew([(client_id, run, None)])
        known = "SETTLED" if run in self.model.settled else "RENEWED" if run in self.model.holds else "GONE"
        assert outcome.value == known
        return f"renew {outcome.value}"

    def grant(self, client_id: str) -> str:
        """Grant anew, or an old id once more, perhaps with another amount."""
        old = self.grants and self.random.random() < 0.3
        if not old:
            self.grants += 1
        grant_id = self.random.randint(max(1, self.grants - 3), self.grants) if old else self.grants
        credits_ = self.random.choice((100, 500, 1_000))
        outcome = self.buckets.grant(client_id, grant_id, credits_).value
        assert outcome == self.model.grant(client_id, grant_id, credits_)
        return f"grant {outcome}"


@pytest.mark.parametrize("seed", range(5))
def test_l2_bucket_and_model_agree_after_each_of_2000_random_operations(buckets: Buckets, seed: int) -> None:
    walk = Walk(buckets, seed)
    for _ in range(STEPS):
        walk.step()
    held = {hold.run_id: dict(hold.grants) for client in CLIENTS for hold in buckets.held(client)}
    assert held == {run: hold.shares for run, hold in walk.model.holds.items()}
    events = [entry for shard in range(buckets.shards) for entry in buckets.outbox(shard, older_than_ms=0, count=STEPS)]
    assert len(events) == len(walk.model.settled), "one event per charge (L3)"
    seen = set(walk.done)
    assert {"reserve HELD", "reserve TAKEN_OVER", "reserve INSUFFICIENT", "reserve CONFLICT", "settle SETTLED"} <= seen
    assert {"settle SETTLED late", "settle SETTLED debt", "release STALE", "grant GRANTED", "grant ALREADY"} <= seen
