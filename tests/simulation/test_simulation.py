"""Fixed seeds of the simulator, and broken rules that it has to find; `make simulate` runs seeds by chance."""

from __future__ import annotations

import dataclasses
import re

import pytest

from tests.simulation.broken import LawBroken
from tests.simulation.cores import Asked, simulate
from tests.simulation.mutants import MUTANTS
from tests.simulation.run import REST_EVERY, run

STEPS = 8_000
#: Seeds of which one has to show a broken rule; most show in the first.
SEEDS_MAX = 30


@pytest.mark.parametrize("seed", range(3))
def test_every_law_holds(seed: int) -> None:
    """Given a fleet with every fault, when it comes to rest, then no law is broken; and faults there were."""
    found = run(seed, STEPS)
    assert found.counts["quiescent points"] == STEPS // REST_EVERY
    assert found.observed.admitted > 500
    for fault in ("killed processes", "losses", "lose_a_bucket", "rebuilds", "posted"):
        assert found.counts[fault], fault
    assert found.books.auditor.counts["confirmed"] > 5
    assert found.books.auditor.counts["units billed"] > 500
    assert sum(number for name, number in found.faults().items() if name.startswith("Stripe: ")) > 5


def test_the_same_seed_is_the_same_run() -> None:
    """Given a seed, when it is run again, then every step is the same: a failure can be replayed."""
    first, second = (run(7, 2_000) for _ in range(2))
    assert first.counts == second.counts
    assert first.clock.elapsed_ms == second.clock.elapsed_ms
    assert list(first.log.history) == list(second.log.history)
    assert first.books.log.increments == second.books.log.increments
    assert first.faults() == second.faults()


@pytest.mark.parametrize("name", MUTANTS)
def test_a_broken_rule_is_found(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a rule that is wrong, when some seeds are run, then one breaks the law that is named; a line replays it."""
    mutant = MUTANTS[name]
    mutant.apply(monkeypatch)
    replays = rf"\[make simulate SEED=\d+ STEPS={STEPS} MUTANT={name}; step \d+\]$"
    with pytest.raises(LawBroken, match=rf"(?s)^({mutant.finds}).*{replays}"):
        run_seeds(name)


def run_seeds(name: str) -> None:
    """Run one seed after the other, until a law is broken."""
    for seed in range(SEEDS_MAX):
        run(seed, STEPS, mutant=name)


def test_the_line_of_a_failing_run_replays_it() -> None:
    """Given a broken rule, when seeds are run as `make simulate` does, then its line leads to the same failure."""
    asked = Asked(first=0, every=1, runs=SEEDS_MAX, steps=STEPS, minutes=0, mutant="always-taken")
    (found,) = simulate(asked).broken
    line = found.splitlines()[-1]
    seed = re.fullmatch(rf"make simulate SEED=(\d+) STEPS={STEPS} MUTANT=always-taken", line)
    assert seed is not None
    assert simulate(dataclasses.replace(asked, first=int(seed[1]), runs=1)).broken == [found]
