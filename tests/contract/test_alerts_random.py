"""Random walks: after each operation the alerts of the stream are those of the model, no more and no fewer."""

from __future__ import annotations

import random
from uuid import UUID

import pytest

from billing.credits.buckets import Buckets
from tests.contract.alert_model import AlertModel
from tests.contract.making import a_hold, a_run, a_settlement
from tests.contract.model import Model, ModelBucket
from tests.contract.servers import Server

STEPS = 1_500


class Walk:
    """One seeded walk of one client."""

    def __init__(self, buckets: Buckets, seed: int, percents: tuple[int, ...]) -> None:
        self.buckets = buckets
        self.random = random.Random(seed)
        self.model = Model()
        self.bucket = self.model.buckets["acme"] = ModelBucket()
        self.alerts = AlertModel(percents)
        self.held: list[UUID] = []
        self.count = 0
        buckets.open_client("acme")

    def step(self) -> None:
        """Take one step and compare."""
        self.count += 1
        names = ["reserve"] * 6 + ["settle"] * 4 + ["release"] * 2 + ["grant"] * (self.random.random() < 0.2)
        getattr(self, self.random.choice(names))()
        found = [(entry.percent, entry.available, entry.granted) for entry in self.buckets.alerts(count=10_000)]
        assert found == self.alerts.raised, self.count

    def reserve(self) -> None:
        """Reserve something, for a new run or one that is held."""
        again = bool(self.held) and self.random.random() < 0.2
        run = self.random.choice(self.held) if again else a_run(task_id=f"task-{self.count}")
        hold = a_hold(run, self.random.choice((0, 1, 5, 20, 60, 150, 700)))
        before = sum(self.bucket.available.values())
        outcome, _ = self.model.reserve(hold)
        assert self.buckets.reserve(hold).outcome.value == outcome
        if outcome == "INSUFFICIENT":
            self.alerts.took(self.bucket, refused=True)
        elif sum(self.bucket.available.values()) < before:
            self.alerts.took(self.bucket)
        if outcome == "HELD":
            self.held.append(run)

    def settle(self) -> None:
        """Settle a run for less than it holds, as much, or more; or one without a hold."""
        late = not self.held or self.random.random() < 0.05
        run = a_run(task_id=f"late-{self.count}") if late else self.held.pop(self.random.randrange(len(self.held)))
        settlement = a_settlement(run, self.random.choice((0, 1, 5, 20, 60)))
        before = sum(self.bucket.available.values())
        _, _, debt = self.model.settle(settlement)
        self.buckets.settle(settlement)
        if debt or sum(self.bucket.available.values()) < before:
            self.alerts.took(self.bucket)
        else:
            self.alerts.gave_back(self.bucket)

    def release(self) -> None:
        """Release a run."""
        if self.held:
            run = self.held.pop(self.random.randrange(len(self.held)))
            assert self.buckets.release("acme", run, "first").value == self.model.release(run, "first")
            self.alerts.gave_back(self.bucket)

    def grant(self) -> None:
        """Grant some, little or much."""
        grant = len(self.bucket.granted) + 1
        credits_ = self.random.choice((3, 100, 500, 2_000))
        assert self.buckets.grant("acme", grant, credits_).value == self.model.grant("acme", grant, credits_)
        self.alerts.granted(self.bucket, grant)


@pytest.mark.usefixtures("buckets")
@pytest.mark.parametrize(("seed", "percents"), [(0, (20, 5)), (1, (20, 5)), (2, (20, 5)), (3, (99, 80, 50, 1))])
def test_stream_and_model_agree_after_each_of_1500_random_operations(
    server: Server, seed: int, percents: tuple[int, ...]
) -> None:
    walk = Walk(server.buckets(alert_percents=percents), seed, percents)
    for _ in range(STEPS):
        walk.step()
    assert {percent for percent, _, _ in walk.alerts.raised} == {*percents, 0}
