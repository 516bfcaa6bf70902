"""Runs a world from a seed, with a quiescent point now and then."""

from __future__ import annotations

import logging
from typing import Final

from tests.simulation.auditor import LawBroken
from tests.simulation.world import World

#: Steps between two quiescent points.
REST_EVERY: Final = 4_000


def run(seed: int, steps: int) -> World:
    """Simulate so many steps, with a quiescent point now and then; raises `LawBroken`, which names seed and step."""
    logging.disable(logging.CRITICAL)
    try:
        world = World(seed)
        for step in range(steps):
            try:
                world.step()
                if (step + 1) % REST_EVERY == 0 or step + 1 == steps:
                    world.quiesce()
            except LawBroken as broken:
                raise LawBroken(f"{broken} [make simulate SEED={seed} STEPS={steps}; step {step}]") from None
        return world
    finally:
        logging.disable(logging.NOTSET)
