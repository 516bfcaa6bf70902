"""The benchmark of a fleet's plan quotes a time only when each client has one increment."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import sqlalchemy

from benchmarks.sync_plan import Side, measure
from billing.connections import postgres
from billing.core.settings import Settings

pytestmark = pytest.mark.integration


@pytest.fixture
def side(database: Settings) -> Iterator[Side]:
    made = Side(database, clients=300, share=0.1)
    yield made
    made.close()


def test_a_plan_of_a_whole_fleet_makes_one_increment_per_client_and_a_wrong_one_is_not_quoted(
    side: Side, database: Settings
) -> None:
    """Given more clients than one slice holds, then each has one increment; one that has none is an error."""
    (row,) = measure(side, side, rounds=1)
    assert "300 clients" in row.name
    assert row.value > 0

    engine = postgres.engine(database)
    with engine.begin() as connection:
        connection.execute(sqlalchemy.text("DELETE FROM stripe_period WHERE customer_id = 'cus_client-7'"))
    engine.dispose()
    with pytest.raises(RuntimeError, match="299 increments in 299 places instead of one for 300 clients"):
        side.plan()
