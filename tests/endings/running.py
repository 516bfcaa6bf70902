"""Runs the matrix of one version of Celery, on servers of its own, and writes what was seen as JSON. Run as `-m`."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import redis

from billing.embedded.stack import Stack
from tests.endings import record
from tests.endings.combination import Combination, all_combinations, installed_version
from tests.endings.harness import Outcome, run
from tests.endings.themes import CELLS
from tests.fleet.fixtures import module_servers

#: Leases that a long run must outlive: as many as ten minutes have under a lease of 15 s, which this shortens.
LEASES: Final = 40


def main() -> int:
    """Run, print, write; return 1 if a cell did not end as it must."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_choices(parser)
    parser.add_argument("--output", type=Path, required=True)
    arguments = parser.parse_args()
    outcomes: list[tuple[Combination, Outcome]] = []
    with Stack(fast=True) as stack:
        for place in chosen_places(arguments):
            if place.version != installed_version():
                continue
            found = run_place(stack, place, arguments.cells, arguments.leases)
            outcomes += [(place, outcome) for outcome in found]
            arguments.output.write_text(json.dumps(record.records(outcomes), indent=1))
    return int(any(outcome.problems for _, outcome in outcomes))


def add_choices(parser: argparse.ArgumentParser) -> None:
    """Add the options that choose what is run."""
    parser.add_argument("--cells", nargs="*", default=[], help="keys of cells")
    parser.add_argument("--pools", nargs="*", default=[])
    parser.add_argument("--brokers", nargs="*", default=[])
    parser.add_argument("--versions", nargs="*", default=[])
    parser.add_argument("--leases", type=int, default=LEASES, help="leases that a long run must outlive")


def chosen_places(arguments: argparse.Namespace) -> list[Combination]:
    """Return where cells are run."""
    return [
        place
        for place in all_combinations()
        if (not arguments.versions or place.version in arguments.versions)
        and (not arguments.pools or place.pool in arguments.pools)
        and (not arguments.brokers or place.broker in arguments.brokers)
    ]


def run_place(stack: Stack, place: Combination, keys: Sequence[str], leases: int) -> list[Outcome]:
    """Run the cells of a place and say how each ended."""
    cells = [cell for cell in CELLS if cell.runs_in(place) and (not keys or cell.key in keys)]
    if not cells:
        return []
    say(f"{place}: {len(cells)} cells")
    with servers_of(stack, place) as servers, tempfile.TemporaryDirectory() as directory:
        outcomes = run(place, cells, servers, Path(directory), leases=leases, say=say)
    for outcome in outcomes:
        if outcome.problems:
            say(f"{place}: {outcome.cell.key}: {'; '.join(outcome.problems)}")
    return outcomes


@contextmanager
def servers_of(stack: Stack, place: Combination) -> Iterator[Mapping[str, str]]:
    """Yield the addresses of a place's servers; its broker is RabbitMQ, or a database of the results' Valkey."""
    with redis.Redis.from_url(stack.results.url_of(1)) as broker:
        broker.flushall()
    with module_servers(stack) as servers:
        yield servers if place.broker == "RabbitMQ" else servers | {"BILLING_BROKER_URL": stack.results.url_of(1)}


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    raise SystemExit(main())
