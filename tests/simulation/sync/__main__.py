"""Runs the simulated sync (`make sync-simulation`); a failing run prints the line that replays it.

`--knobs` runs the product of what Stripe does not document, at a small size each.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import secrets
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

from tests.simulation.broken import LawBroken
from tests.simulation.sync.run import run
from tests.simulation.sync.world import Size, World

HOUR: Final = 3_600
#: What is not documented, or documented twice: every choice with every other.
KNOBS: Final[dict[str, tuple[object, ...]]] = {
    "identifier_window_seconds": (24 * HOUR, 36 * HOUR, 4_000 * HOUR),
    "summary_lag_seconds": (0, 20 * HOUR),
    "end_time_inclusive": (False, True),
    "duplicate_first": (False, True),
    "deleted_customer": ("drop", "refuse"),
    "empty_summaries": ("zero", "absent"),
}
#: Settings of ours, each with one combination of the knobs after the other.
POLICIES: Final = (("carry_forward", 1), ("invoice_item", 1), ("write_off", 1), ("carry_forward", 72))
#: At which size a combination is run.
SMALL: Final = Size(clients=6, days=8, habits=((1, 6), (1, 48)), deleted_once_in=6)


def main() -> int:
    """Simulate, print what happened, and return 1 if a law was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="by chance if none is given")
    parser.add_argument("--clients", type=int, default=10_000)
    parser.add_argument("--days", type=int, default=30)
    parser.add_argument("--knobs", action="store_true", help="run the product of the stand-in's knobs instead")
    parser.add_argument("changes", nargs="*", metavar="NAME=VALUE", help="as a replay names it")
    given = parser.parse_args()
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    sizes: Iterator[Size] | list[Size] = products() if given.knobs else [changed(given)]
    begun, runs = time.perf_counter(), 0
    for size in sizes:
        try:
            world, auditor = run(seed, size, tell=told_of if not given.knobs else lambda _: None)
        except LawBroken as broken:
            sys.stdout.write(f"{broken}\n")
            return 1
        runs += 1
        if not given.knobs:
            told = {**world.counts, **world.server.counts, **world.fleet.ended, **auditor.counts}
            for name, number in sorted(told.items()):
                sys.stdout.write(f"  {name:<32}{number:>14,}\n")
    seconds = time.perf_counter() - begun
    sys.stdout.write(f"every law held: {runs} runs from seed {seed}, {seconds:.0f} s\n")
    return 0


def told_of(world: World) -> None:
    """Say on stderr that a day has passed with every law held: a large run takes long."""
    increments = sum(len(numbers) for numbers in world.log.by_state.values())
    sys.stderr.write(f"day {world.day}: every law held; {increments:,} increments, {time.process_time():,.0f} s\n")


def products() -> Iterator[Size]:
    """Yield every combination of knobs, each with one of our policies."""
    for number, values in enumerate(itertools.product(*KNOBS.values())):
        late_usage, grace_hours = POLICIES[number % len(POLICIES)]
        knobs = dict(zip(KNOBS, values, strict=True))
        refuses = number // len(POLICIES) % 2 == 1
        yield dataclasses.replace(
            SMALL, knobs=knobs, late_usage=late_usage, grace_hours=grace_hours, refuses_sums=refuses
        )


def changed(given: argparse.Namespace) -> Size:
    """Return the size that the arguments say."""
    size = Size(clients=given.clients, days=given.days)
    knobs: dict[str, object] = {}
    for change in given.changes:
        name, _, text = change.partition("=")
        value: Any = {"True": True, "False": False}.get(text, int(text) if text.isdigit() else text)
        if name == "habits":
            habits = tuple((int(one.partition(":")[0]), int(one.partition(":")[2])) for one in text.split(","))
            size = dataclasses.replace(size, habits=habits)
        elif name in {"late_usage", "grace_hours", "deleted_once_in", "refuses_sums"}:
            size = dataclasses.replace(size, **{name: value})
        else:
            knobs[name] = value
    return dataclasses.replace(size, knobs=knobs)


if __name__ == "__main__":
    raise SystemExit(main())
