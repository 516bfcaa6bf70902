"""Runs simulations (`make simulate`); a failing one prints the line that replays it."""

from __future__ import annotations

import argparse
import collections
import secrets
import sys
import time

from tests.simulation.auditor import LawBroken
from tests.simulation.run import run


def main() -> int:
    """Simulate, print what happened, and return 1 if a law was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="the first seed; by chance if none is given")
    parser.add_argument("--steps", type=int, default=100_000, help="steps of each simulation")
    parser.add_argument("--runs", type=int, default=1, help="simulations, with one seed after the other")
    arguments = parser.parse_args()
    first = secrets.randbelow(2**32) if arguments.seed is None else arguments.seed
    counts: collections.Counter[str] = collections.Counter()
    begun = time.perf_counter()
    for seed in range(first, first + arguments.runs):
        try:
            world = run(seed, arguments.steps)
        except LawBroken as broken:
            sys.stdout.write(f"seed {seed}: {broken}\n")
            return 1
        counts.update(world.counts)
        counts.update(
            {"admitted": world.observed.admitted, "in the log": len(world.log.history), "late": world.observed.late}
        )
    seconds = time.perf_counter() - begun
    sys.stdout.write(
        f"every law held: {arguments.runs} x {arguments.steps:,} steps from seed {first}, {seconds:.0f} s" + "\n"
    )
    for name, number in sorted(counts.items()):
        sys.stdout.write(f"  {name.replace('_', ' '):<24}{number:>12,}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
