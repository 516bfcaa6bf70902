"""Runs simulations (`make simulate`): seeds one after the other, so many or for so many minutes, on so many cores.

Prints the task lifecycles that were run and how many an hour of one core, the faults by kind, and for a run that broke
a law the line that replays it.
"""

from __future__ import annotations

import argparse
import secrets
import sys
import time

from tests.simulation.cores import Asked, Told, in_processes, simulate
from tests.simulation.mutants import MUTANTS


def main() -> int:
    """Simulate, print what happened, and return 1 if a law was broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=None, help="the first seed; by chance if none is given")
    parser.add_argument("--steps", type=int, default=100_000, help="steps of each run")
    parser.add_argument("--runs", type=int, default=1, help="runs, with one seed after the other")
    parser.add_argument("--minutes", type=float, default=0.0, help="run seeds for so long, instead of so many")
    parser.add_argument("--processes", type=int, default=1, help="as many cores")
    parser.add_argument("--mutant", choices=sorted(MUTANTS), default="", help="break this rule on purpose")
    given = parser.parse_args()
    first = secrets.randbelow(2**32) if given.seed is None else given.seed
    begun, processes = time.monotonic(), max(1, given.processes)
    asked = [
        Asked(
            first=first + number,
            every=processes,
            runs=len(range(number, given.runs, processes)),
            steps=given.steps,
            minutes=given.minutes,
            mutant=given.mutant,
        )
        for number in range(processes)
    ]
    told = Told()
    for found in [simulate(asked[0])] if processes == 1 else in_processes(asked):
        told.add(found)
    _print(told, first, time.monotonic() - begun)
    return 1 if told.broken else 0


def _print(told: Told, first: int, seconds: float) -> None:
    say = sys.stdout.write
    say(f"{told.runs:,} runs from seed {first}, {seconds:,.0f} s\n\n")
    _say("task lifecycles", told.lifecycles)
    _say("  an hour of one core", round(told.lifecycles / max(told.seconds, 0.001) * 3_600))
    for name, number in sorted(told.counts.items()):
        _say(f"  {name}", number)
    _say("faults injected", told.faults.total())
    for name, number in sorted(told.faults.items(), key=lambda item: (-item[1], item[0])):
        _say(f"  {name}", number)
    _say("violations", len(told.broken))
    for line in told.broken:
        say(f"\n{line}\n")


def _say(name: str, number: int) -> None:
    sys.stdout.write(f"{name:<48}{number:>14,}\n")


if __name__ == "__main__":
    raise SystemExit(main())
