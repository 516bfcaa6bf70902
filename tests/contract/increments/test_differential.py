"""PostgreSQL's increment log and the one in memory do the same: what holds in the simulation holds for the tables."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.contract.increments.books import NOON, Books, MemoryBooks
from tests.contract.increments.operations import CLIENTS, Clock, Operations, snapshot, steps

STEPS = 251
#: Steps between two looks at all that is on record.
LOOK_EVERY = 10


@pytest.mark.parametrize("seed", range(3))
def test_given_the_same_operations_then_both_logs_say_and_hold_the_same(in_postgres: Books, seed: int) -> None:
    """Given random operations, when each is done on both logs, then answers and records are equal."""
    pair: list[Books] = [in_postgres, MemoryBooks()]
    clocks = [Clock(NOON) for _ in pair]
    sides = [Operations(books, clock) for books, clock in zip(pair, clocks, strict=True)]
    for books in pair:
        for client_id in CLIENTS:
            books.add(client_id, f"cus_{client_id}")
    for number, (name, chosen) in enumerate(steps(seed, STEPS)):
        said = [side.do(name, chosen) for side in sides]
        assert said[0] == said[1], f"step {number} of seed {seed}: {name}"
        if number % LOOK_EVERY:
            continue
        held = [snapshot(books) for books in pair]
        for what in held[0]:
            assert held[0][what] == held[1][what], f"step {number} of seed {seed}: {name}: {what}"
    states = Counter(increment.state for increment in in_postgres.increments())
    assert len(states) >= 4, "nothing happened"
    assert in_postgres.attempts()
