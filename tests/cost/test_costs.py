"""Nothing costs more than is recorded: commands, round trips, statements, frames, bytes, calls; no time is measured.

Where one of these fails, `make costs` prints all figures. A test that adds a round trip here shows that it is seen.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from unittest import mock

import pytest
from celery import VERSION

from billing.credits import scripts
from billing.credits.buckets import Buckets
from billing.events.usage_event import encode_head
from billing.fulfillment import postgres_log
from tests.contract.conftest import binary_or_skip
from tests.contract.servers import started
from tests.cost import of_batches, of_events, of_functions, of_imports, of_tasks
from tests.cost.measures import MEASURES
from tests.cost.place import Place
from tests.cost.records import RECORDED, compared, read

pytestmark = pytest.mark.integration

RECORD = read(RECORDED.read_text("utf-8"))
#: The figures of `calls` are of the locked Celery: another version calls other hooks.
CALLS_OF = (5, 7)


def complaints(found: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return what differs from the record."""
    rows = compared(RECORD, found)
    assert rows
    return [row.complaint for row in rows if row.complaint and (row.name != "calls" or VERSION[:2] == CALLS_OF)]


@pytest.mark.parametrize("part", MEASURES)
def test_l9_nothing_costs_more_than_is_recorded(place: Place, part: str) -> None:
    assert complaints(MEASURES[part](place)) == []


def test_l9_redis_7_runs_the_same_commands_in_each_function() -> None:
    with started(binary_or_skip("redis7")) as server:
        assert complaints(of_functions.measure_on(server.url)) == []


def test_what_a_batch_costs_does_not_depend_on_its_size_or_on_the_history() -> None:
    """Given the record, then a batch of one costs what a batch of a thousand does, after thousands of rows, too."""
    figures = {name: table for name, table in RECORD.items() if name.startswith("batch.") and "twins" not in name}
    assert len(figures) == 6
    assert len({tuple(table[what] for what in ("sql_commits", "sql_round_trips")) for table in figures.values()}) == 1
    assert len({table["sql_statements"] for table in figures.values()}) == 1


def test_what_a_function_costs_does_not_depend_on_the_number_of_grants() -> None:
    """Given the record, then of a reserve, a settle and all others but a rebuild, 8 and 64 grants cost the same."""
    growing = {
        name
        for name, table in RECORD.items()
        if name.startswith("function.") and table["grants_8"] != table["grants_64"]
    }
    assert growing == {"function.rebuild"}


def test_given_a_reserve_that_asks_once_more_then_each_way_of_a_task_fails_and_names_it(place: Place) -> None:
    """The gate sees one round trip more, in bytes, commands and calls."""
    reserve = Buckets.reserve

    def asking(buckets: Buckets, hold: Any, **named: Any) -> Any:
        buckets.time_ms()
        return reserve(buckets, hold, **named)

    with mock.patch.object(Buckets, "reserve", asking):
        found = complaints(of_tasks.measure(place))
    for name in (table for table in RECORD if table.startswith("task.")):
        now = RECORD[name]["redis_round_trips"] + (2 if name.endswith("retried") else 1)
        line = f"{name}: redis_round_trips: costs {now}, more than the recorded {RECORD[name]['redis_round_trips']}"
        assert line in found


def test_given_a_batch_that_asks_once_for_each_event_then_the_gate_fails(place: Place) -> None:
    """Given a statement for each event, then a batch of a thousand is a thousand statements too many."""
    insert = postgres_log._insert

    def asking(cursor: Any, first: Any) -> Any:
        for _ in first:
            cursor.execute("SELECT 1")
        return insert(cursor, first)

    with mock.patch.object(postgres_log, "_insert", asking):
        found = complaints(of_batches.measure(place))
    now = RECORD["batch.1000"]["sql_statements"]
    assert f"batch.1000: sql_statements: costs {now + 1_000}, more than the recorded {now}" in found


def test_given_a_function_that_reads_once_more_then_the_gate_fails() -> None:
    """Given one command more inside `reserve`, which no wire carries, then the record of that function says so."""
    name, text = scripts.library()
    begun = "local function reserve(KEYS, ARGV)\nbegin()\n"
    assert begun in text
    slower = text.replace(begun, f"{begun}redis.call('TIME')\n")
    with (
        mock.patch.object(scripts, "library", return_value=(name, slower)),
        started(binary_or_skip("valkey")) as server,
    ):
        found = complaints(of_functions.measure_on(server.url))
    assert [line.split(": ")[:2] for line in found] == [
        ["function.reserve", f"grants_{grants}"] for grants in of_functions.GRANTS
    ]


def test_given_an_event_with_a_field_more_then_the_gate_fails(place: Place) -> None:
    """Given nine bytes more in what a run says of itself, then they are seen."""
    with mock.patch.object(of_events, "encode_head", lambda head: encode_head(head) + b',"more":1'):
        found = complaints(of_events.measure(place))
    now = RECORD["event.1_line"]["bytes"]
    assert f"event.1_line: bytes: costs {now + 9}, more than the recorded {now}" in found


def test_given_one_heavy_import_then_the_gate_fails() -> None:
    imports = {name: f"{text}; import sqlalchemy" for name, text in of_imports._IMPORTS.items()}
    with mock.patch.object(of_imports, "_IMPORTS", imports):
        found = complaints(of_imports.measure())
    assert "import.declared: heavy: costs 1, more than the recorded 0" in found
