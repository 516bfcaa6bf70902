"""What the tests of parked tasks share: the settings of a fleet that parks, and looks at the table."""

from __future__ import annotations

from typing import Any

import psycopg

from tests.fleet.harness import Fleet
from tests.waiting import wait_until

PARKING = {"BILLING_ON_EXHAUSTED": "park", "BILLING_PARKED_PER_CLIENT_MAX": "20"}


def rows(fleet: Fleet, client: str) -> list[dict[str, Any]]:
    """Return the client's rows, in the order of parking."""
    with psycopg.connect(fleet.settings.database_url, row_factory=psycopg.rows.dict_row) as connection:
        query = "SELECT * FROM parked_task WHERE client_id = %s ORDER BY parked_id"
        return connection.execute(query, [client]).fetchall()


def wait_parked(fleet: Fleet, client: str, count: int, state: str = "waiting") -> None:
    wait_until(
        lambda: sum(row["state"] == state for row in rows(fleet, client)) == count, f"{count} of {client} are {state}"
    )
