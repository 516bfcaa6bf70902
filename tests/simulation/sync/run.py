"""Runs a world from a seed, and has it audited each day and at its end."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tests.simulation.sync.auditor import Auditor, LawBroken
from tests.simulation.sync.chances import Outage, Rates
from tests.simulation.sync.names import named
from tests.simulation.sync.world import Size, World


def run(
    seed: int, size: Size, rates: Rates | None = None, outages: Sequence[Outage] | None = None
) -> tuple[World, Auditor]:
    """Simulate; raises `LawBroken`, whose text has the line that replays it."""
    logging.disable(logging.CRITICAL)
    try:
        with named(seed):
            world = World(seed, size, rates, outages)
            auditor = Auditor(world)
            try:
                world.run(auditor.check)
                auditor.check_end()
            except LawBroken as broken:
                raise LawBroken(f"{broken} [{replay(seed, size)}; day {world.day}]") from broken.__cause__
            return world, auditor
    finally:
        logging.disable(logging.NOTSET)


def replay(seed: int, size: Size) -> str:
    """Return the line that replays a run."""
    more = "".join(f" {name}={value}" for name, value in sorted(size.knobs.items()))
    policy = f" late_usage={size.late_usage}" if size.late_usage != "carry_forward" else ""
    grace = f" grace_hours={size.grace_hours}" if size.grace_hours != 1 else ""
    arguments = f' ARGS="{(policy + grace + more).strip()}"' if policy + grace + more else ""
    return f"make sync-simulation SEED={seed} CLIENTS={size.clients} DAYS={size.days}{arguments}"
