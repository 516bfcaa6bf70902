"""Each safeguard of the sync is needed: without it the simulation fails, by the law that it keeps."""

from __future__ import annotations

import pytest

from tests.simulation.broken import LawBroken
from tests.simulation.sync.mutants import MUTANTS, Mutant
from tests.simulation.sync.run import run

#: Seeds in which a mutant has to show: the first does, as a rule.
SEEDS_MAX = 8
#: A mutant for each world that differs from the others.
WORLDS = {(str(one.size), str(one.rates()), one.outages): name for name, one in MUTANTS.items()}.values()


@pytest.mark.parametrize("name", MUTANTS)
def test_without_a_safeguard_a_law_is_broken(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given the safeguard taken away, when some seeds are run, then the law that is named is broken."""
    mutant = MUTANTS[name]
    mutant.apply(monkeypatch)
    with pytest.raises(LawBroken, match=mutant.finds):
        run_seeds(mutant)


@pytest.mark.parametrize("name", WORLDS)
def test_with_all_safeguards_the_same_worlds_hold(name: str) -> None:
    """Given the world in which a safeguard is needed, when it is there, then every law holds."""
    mutant = MUTANTS[name]
    run(0, mutant.size, mutant.rates(), mutant.outages)


def run_seeds(mutant: Mutant) -> None:
    """Run one seed after the other, until a law is broken."""
    for seed in range(SEEDS_MAX):
        run(seed, mutant.size, mutant.rates(), mutant.outages)
