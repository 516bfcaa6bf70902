"""A representative part of the matrix of endings; `make endings` runs all of it, on every pool, version and broker."""

from __future__ import annotations

import dataclasses
from typing import Final

import pytest

from billing.embedded.stack import Stack
from tests.endings.cell import Cell
from tests.endings.combination import BASE, VERSIONS, installed_version
from tests.endings.harness import Outcome, run
from tests.endings.themes import CELLS
from tests.fleet.fixtures import module_servers

pytestmark = [pytest.mark.integration, pytest.mark.slow]

QUICK: Final = [cell for cell in CELLS if cell.quick]
#: How many leases a long run outlives here; in `make endings` it is as many as ten minutes have.
LEASES: Final = 3


@pytest.fixture(scope="module")
def outcomes(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Outcome]:
    """Run them all at once, on one fleet."""
    (version,) = [version for version in VERSIONS if version == installed_version()]
    place = dataclasses.replace(BASE, version=version)
    with module_servers(stack) as servers:
        found = run(place, QUICK, servers, tmp_path_factory.mktemp("endings"), leases=LEASES)
    return {outcome.cell.key: outcome for outcome in found}


@pytest.mark.parametrize("cell", QUICK, ids=lambda cell: cell.key)
def test_rows_balance_hold_caller_and_flower_are_as_they_must(outcomes: dict[str, Outcome], cell: Cell) -> None:
    """Given an ending, when all is quiet, then rows and balance are exact and no hold is left (L2, L3, L5)."""
    assert outcomes[cell.key].problems == []
