"""Fixed seeds of the simulator; `make simulate` runs others. A failing one prints the line that replays it."""

from __future__ import annotations

import pytest

from tests.simulation.world import run


@pytest.mark.parametrize("seed", range(4))
def test_every_law_holds(seed: int) -> None:
    """Given a fleet with every fault, when it comes to rest, then no law is broken; and every fault has happened."""
    world = run(seed, 12_000)
    assert world.counts["quiescent points"] == 3
    assert world.observed.admitted > 500
    assert world.counts["rebuilds"] > 0
    assert world.counts["killed processes"] > 0
