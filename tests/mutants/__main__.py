"""Runs the mutants: `python -m tests.mutants [--only WORDS] [--processes 2]`; exit 1 where a safeguard is not tested.

First every selection must pass without any mutant. Then each mutant is made in a copy of the tracked files.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import contextlib
import json
import os
import platform
import queue
import sys
from collections.abc import Sequence
from pathlib import Path

from tests.mutants import report
from tests.mutants.catalogue import ROOMS
from tests.mutants.mutant import Broken, Mutant, Outcome
from tests.mutants.workbench import Workbench

ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutants", description=__doc__)
    parser.add_argument("--only", action="append", default=[], help="words of a room, a name, a law or a file")
    parser.add_argument("--processes", type=int, default=2, help="mutants at a time, each beside servers of its own")
    parser.add_argument("--unchecked", action="store_true", help="do not first run the tests without any mutant")
    parser.add_argument("--list", action="store_true", help="name the mutants, and run none")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "mutants.json", help="where the result goes")
    asked = parser.parse_args(arguments)
    wanted = [
        (room, mutant) for room, mutants in ROOMS.items() for mutant in mutants if _is_asked(asked.only, room, mutant)
    ]
    if asked.list:
        print("\n".join(f"{room}: {mutant.name} [{mutant.laws}] {mutant.file}" for room, mutant in wanted))  # noqa: T201
        return 0
    if not wanted or asked.processes < 1:
        parser.error("there is nothing to run")
    try:
        for _, mutant in wanted:
            mutant.check(ROOT)
        outcomes = run(wanted, min(asked.processes, len(wanted)), checked=not asked.unchecked)
    except Broken as error:
        print(error, file=sys.stderr)  # noqa: T201
        return 1
    machine = f"{os.cpu_count()} cores, {platform.machine()}, Python {platform.python_version()}"
    asked.json.parent.mkdir(parents=True, exist_ok=True)
    asked.json.write_text(json.dumps(report.as_json(outcomes, machine), indent=1, ensure_ascii=False) + "\n")
    print(f"\n{report.text(outcomes)}")  # noqa: T201
    return 0 if report.holds(outcomes) else 1


def run(wanted: Sequence[tuple[str, Mutant]], processes: int, *, checked: bool) -> list[Outcome]:
    """Run mutants, some at a time; return what became of each, in their order. Raises `Broken`."""
    with contextlib.ExitStack() as stack:
        benches: queue.SimpleQueue[Workbench] = queue.SimpleQueue()
        made = [stack.enter_context(Workbench(ROOT)) for _ in range(processes)]
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(processes))
        # Ctrl-C ends it with the mutants that are under way.
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        selections = sorted({selection for _, mutant in wanted for selection in mutant.tests})
        if checked:
            print(f"{len(selections)} selections without any mutant …", flush=True)  # noqa: T201
            for done in [pool.submit(bench.check, selections[at::processes]) for at, bench in enumerate(made)]:
                done.result()
        for bench in made:
            benches.put(bench)

        def one(room: str, mutant: Mutant) -> Outcome:
            bench = benches.get()
            try:
                outcome = bench.run(mutant, room)
            finally:
                benches.put(bench)
            print(report.line(outcome), flush=True)  # noqa: T201
            return outcome

        futures = [pool.submit(one, room, mutant) for room, mutant in wanted]
        return [future.result() for future in futures]


def _is_asked(words: Sequence[str], room: str, mutant: Mutant) -> bool:
    text = f"{room}: {mutant.name} [{mutant.laws} ] {mutant.file}".lower()
    return not words or any(word.lower() in text for word in words)


if __name__ == "__main__":
    sys.exit(main())
