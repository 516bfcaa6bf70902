"""The one row that remembers what must never change: how many shards and usage queues this fleet has.

Another number of shards would look for every client's bucket in the wrong place; another number of queues would
give one client two orders of events.
"""

from __future__ import annotations

from sqlalchemy import Connection, exists, insert, select, update

from billing.core.fleet_numbers import check_numbers
from billing.core.settings import Settings
from billing.schema.tables import client, fleet


def record_fleet(connection: Connection, settings: Settings) -> None:
    """Store the numbers at the first migration, and later as long as no client exists; else check them."""
    found = connection.execute(select(fleet.c.shards, fleet.c.usage_queues)).one_or_none()
    numbers = {"shards": settings.shards, "usage_queues": settings.usage_queues}
    if found is None:
        connection.execute(insert(fleet).values(numbers))
    elif tuple(found) != tuple(numbers.values()):
        if connection.execute(select(exists(select(client.c.client_id)))).scalar_one():
            check_fleet(connection, settings)
        connection.execute(update(fleet).values(numbers))


def check_fleet(connection: Connection, settings: Settings) -> None:
    """Raise `InvalidValue` if the settings differ from what the database remembers."""
    found = connection.execute(select(fleet.c.shards, fleet.c.usage_queues)).one_or_none()
    if found is None:
        return
    check_numbers(settings, found.shards, found.usage_queues)
