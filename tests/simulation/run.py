"""Runs a world from a seed, with a quiescent point now and then, and the books closed at its end."""

from __future__ import annotations

import logging
from typing import Final

from tests.simulation.broken import LawBroken
from tests.simulation.sync.names import named
from tests.simulation.world import World

#: Steps between two quiescent points.
REST_EVERY: Final = 4_000


def run(seed: int, steps: int, *, mutant: str = "") -> World:
    """Simulate so many steps; raises `LawBroken`, whose text has the line that replays it.

    `mutant` is the name of the rule that the caller has broken, for that line.
    """
    logging.disable(logging.CRITICAL)
    step = 0
    try:
        with named(seed):
            world = World(seed, rests=steps // REST_EVERY)
            for step in range(steps):
                world.step()
                if (step + 1) % REST_EVERY == 0 or step + 1 == steps:
                    world.quiesce()
            world.close()
            return world
    except LawBroken as broken:
        raise LawBroken(f"{broken} [{replay(seed, steps, mutant)}; step {step}]") from broken.__cause__
    finally:
        logging.disable(logging.NOTSET)


def replay(seed: int, steps: int, mutant: str) -> str:
    """Return the line that replays a run."""
    return f"make simulate SEED={seed} STEPS={steps}" + (f" MUTANT={mutant}" if mutant else "")
