"""Fixed seeds of the simulated sync, at a small size; `make sync-simulation` runs large ones by chance."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import pytest

from tests.simulation.sync.__main__ import SMALL, products
from tests.simulation.sync.chances import Rates
from tests.simulation.sync.run import run

PRODUCTS = list(products())


@pytest.mark.parametrize("seed", range(3))
def test_every_law_holds(seed: int) -> None:
    """Given every fault, when all is settled, then each unit is billed once; and faults there were."""
    world, auditor = run(seed, dataclasses.replace(SMALL, clients=10))
    assert auditor.counts["confirmed"] > 50
    for fault in ("commit_then_close", "commit_then_error", "hang", "rate_limit", "drop"):
        assert world.server.counts[f"fault: {fault}"], fault
    assert world.fleet.mortal.killed
    assert world.counts["twins"]


def test_a_broken_customer_delays_no_other() -> None:
    """Given customers that are deleted and refused, and no other fault, then all others are confirmed at once (L10)."""
    calm = Rates()
    calm.calm()
    knobs: dict[str, object] = {"deleted_customer": "refuse"}
    size = dataclasses.replace(SMALL, clients=14, deleted_once_in=2, refuses_sums=True, knobs=knobs)
    world, _ = run(3, size, calm)
    well = {client.client_id for client in world.clients if client.deleted_ms is None}
    own = [one for one in world.log.increments.values() if one.client_id in well]
    assert world.counts["deleted"] > 3
    assert len(own) > 30
    for one in own:
        assert one.confirmed_at is not None
        assert one.confirmed_at - one.planned_at < timedelta(minutes=45), one


def test_the_same_seed_is_the_same_run() -> None:
    """Given a seed, when it is run again, then everything is the same: a failure can be replayed."""
    (first, _), (second, _) = (run(7, dataclasses.replace(SMALL, days=3)) for _ in range(2))
    assert first.counts == second.counts
    assert first.server.counts == second.server.counts
    assert first.log.increments == second.log.increments


@pytest.mark.parametrize("number", range(0, len(PRODUCTS), 13))
def test_no_law_rests_on_what_is_not_documented(number: int) -> None:
    """Given some of the combinations of the stand-in's knobs and our policies, then every law holds."""
    run(number, dataclasses.replace(PRODUCTS[number], days=5))
