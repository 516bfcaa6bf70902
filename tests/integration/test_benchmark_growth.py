"""The benchmark of growth asks two real histories, and refuses to quote a time whose answer is wrong."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime

import psycopg
import pytest

from benchmarks import growth
from benchmarks.growth import Side, measure
from benchmarks.history import make_history
from billing.core.settings import Settings
from billing.embedded.stack import Stack

pytestmark = pytest.mark.integration


@pytest.fixture
def sides(stack: Stack, database: Settings) -> Iterator[tuple[Side, Side]]:
    """Make a history of 14,000 rows, and a copy of it: at this size there is nothing to compare but the answers."""
    history = make_history(database, rows=14_000, clients=20, now=datetime.now(UTC))
    name = database.database_url.rpartition("/")[2]
    with psycopg.connect(stack.postgres.url_of("postgres"), autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}_copy TEMPLATE {name}")
        copied = dataclasses.replace(database, database_url=stack.postgres.url_of(f"{name}_copy"))
        made = Side(history), Side(dataclasses.replace(history, settings=copied))
        try:
            yield made
        finally:
            for side in made:
                side.close()
            connection.execute(f"DROP DATABASE {name}_copy WITH (FORCE)")


def test_given_two_histories_when_asked_in_turns_then_each_question_has_its_row_and_a_wrong_answer_has_none(
    sides: tuple[Side, Side], monkeypatch: pytest.MonkeyPatch
) -> None:
    found = measure(*sides, rounds=1)
    assert len(found) == len(growth.QUESTIONS) + len(growth.ANSWERS)
    assert [row.mark for row in found] == [1.5, 1.5, 1.5, 1.0, 1.0]
    size = f"{sides[1].history.rows:,} rows"
    assert [row.name for row in found if row.value <= 0 or size not in row.name + row.against] == []

    monkeypatch.setattr(Side, "prepare", lambda _: None)
    sides[0].plan([])  # what the last batch used
    with pytest.raises(RuntimeError, match="plan of one sync, 200 clients: 0 instead of 200"):
        measure(*sides, rounds=1)
