"""Runs a world from a seed, and has it audited each day and at its end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence

from tests.simulation.broken import LawBroken
from tests.simulation.sync.auditor import Auditor
from tests.simulation.sync.chances import Outage, Rates
from tests.simulation.sync.names import named
from tests.simulation.sync.world import Size, World


def run(
    seed: int,
    size: Size,
    rates: Rates | None = None,
    outages: Sequence[Outage] | None = None,
    *,
    tell: Callable[[World], None] = lambda _: None,
) -> tuple[World, Auditor]:
    """Simulate; raises `LawBroken`, whose text has the line that replays it. `tell` is called after each audit."""
    logging.disable(logging.CRITICAL)
    try:
        with named(seed):
            world = World(seed, size, rates, outages)
            auditor = Auditor(world)

            def look() -> None:
                auditor.check()
                tell(world)

            try:
                world.run(look)
                auditor.check_end()
            except LawBroken as broken:
                raise LawBroken(f"{broken} [{replay(seed, size)}; day {world.day}]") from broken.__cause__
            return world, auditor
    finally:
        logging.disable(logging.NOTSET)


def replay(seed: int, size: Size) -> str:
    """Return the line that replays a run: what differs from a plain one is named."""
    plain = Size()
    names = ("late_usage", "grace_hours", "deleted_once_in", "refuses_sums", "habits")
    own = {name: getattr(size, name) for name in names if getattr(size, name) != getattr(plain, name)}
    if "habits" in own:
        own["habits"] = ",".join(f"{weight}:{hours}" for weight, hours in size.habits)
    changes = " ".join(f"{name}={value}" for name, value in {**own, **size.knobs}.items())
    arguments = f' ARGS="{changes}"' if changes else ""
    return f"make sync-simulation SEED={seed} CLIENTS={size.clients} DAYS={size.days}{arguments}"
