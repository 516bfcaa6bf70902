"""Runs seeds one after the other in a process, and in several processes at once; adds up what they came to."""

from __future__ import annotations

import collections
import concurrent.futures
import dataclasses
import multiprocessing
import sys
import time
from collections.abc import Sequence

import pytest

from tests.simulation.broken import LawBroken
from tests.simulation.mutants import MUTANTS
from tests.simulation.run import replay, run


@dataclasses.dataclass(kw_only=True)
class Told:
    """What the runs of one process, or of all, came to."""

    runs: int = 0
    lifecycles: int = 0
    seconds: float = 0.0
    faults: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    broken: list[str] = dataclasses.field(default_factory=list)

    def add(self, other: Told) -> None:
        """Add what another process tells."""
        self.runs += other.runs
        self.lifecycles += other.lifecycles
        self.seconds += other.seconds
        self.faults.update(other.faults)
        self.counts.update(other.counts)
        self.broken += other.broken


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What one process is to run: every `every`th seed, until there were enough or time is up. `minutes`: 0 for no end.

    It stops at the first law that is broken.
    """

    first: int
    every: int
    runs: int
    steps: int
    minutes: float
    mutant: str


def in_processes(asked: Sequence[Asked]) -> list[Told]:
    """Run each in a process of its own."""
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(len(asked), mp_context=context) as pool:
        return list(pool.map(simulate, asked))


def simulate(asked: Asked) -> Told:
    """Run seeds in this process."""
    patch, told, seed = pytest.MonkeyPatch(), Told(), asked.first
    ends = time.monotonic() + asked.minutes * 60
    begun = time.process_time()
    if asked.mutant:
        MUTANTS[asked.mutant].apply(patch)
    try:
        while not told.broken and (time.monotonic() < ends if asked.minutes else told.runs < asked.runs):
            _run(seed, asked, told)
            seed += asked.every
    finally:
        patch.undo()
    told.seconds = time.process_time() - begun
    return told


def _run(seed: int, asked: Asked, told: Told) -> None:
    told.runs += 1
    try:
        world = run(seed, asked.steps, mutant=asked.mutant)
    except LawBroken as broken:
        told.broken.append(f"{broken}\n{replay(seed, asked.steps, asked.mutant)}")
        return
    told.lifecycles += world.workload.tasks
    told.faults.update(world.faults())
    told.counts.update(world.came_to())
    sys.stderr.write(f"seed {seed}: every law held, {world.workload.tasks:,} lifecycles, {world.books.day} days\n")
