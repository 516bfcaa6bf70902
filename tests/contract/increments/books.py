"""Where increments are kept, as the suite sees it: usage goes in, and what is on record comes out."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

from sqlalchemy import Engine, text

from billing.catalog.clients import add_client
from billing.sinks.sink import Answer
from billing.sinks.stripe.links import link
from billing.sinks.sync.increment import Attempt, Increment
from billing.sinks.sync.log import IncrementLog
from billing.sinks.sync.postgres.log import PostgresLog
from billing.sinks.sync.postgres.rows import COLUMNS, increment_of
from tests.simulation.sync.memory_log import MemoryLog
from tests.simulation.sync.memory_usage import MemoryUsage

NOON: Final = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)
#: A unit of `tokens` is 1,000 credits; what has no meter of its own is counted by `credits`.
CREDITS_PER_UNIT: Final = {"tokens": 1_000}
METER_OF: Final = {"token": "tokens"}

Generation = tuple[int, int, str, datetime, datetime, datetime]
Rollup = tuple[str, str, datetime, int, int, int, int]


class Books(Protocol):
    """Empty books, for one test. Meters are known; clients are added and linked."""

    log: IncrementLog

    def add(self, client_id: str, customer_id: str) -> None:
        """Add a client, linked to a customer."""
        ...

    def use(self, client_id: str, sku: str, hour: datetime, credits_: int) -> None:
        """Add usage; below 0: what a correction returned."""
        ...

    def increments(self) -> list[Increment]:
        """Return all of them."""
        ...

    def attempts(self) -> list[Attempt]:
        """Return all of them."""
        ...

    def generations(self) -> list[Generation]:
        """Return all generations of all increments."""
        ...

    def parts(self) -> list[tuple[int, str, datetime, int, int]]:
        """Return the parts of all increments."""
        ...

    def rollups(self) -> list[Rollup]:
        """Return the rows of usage, with what is planned of each."""
        ...

    def close(self) -> None:
        """Close what is open."""
        ...


class MemoryBooks:
    """Books in memory."""

    def __init__(self) -> None:
        self._usage = MemoryUsage()
        self._usage.meters, self._usage.meter_of = dict(CREDITS_PER_UNIT), dict(METER_OF)
        self._memory = MemoryLog(self._usage)
        self.log: IncrementLog = self._memory

    def add(self, client_id: str, customer_id: str) -> None:
        """Link a client."""
        self._usage.link(client_id, customer_id)

    def use(self, client_id: str, sku: str, hour: datetime, credits_: int) -> None:
        """Add usage, or what was returned."""
        if credits_ > 0:
            self._usage.use(client_id, sku, hour, credits_)
        else:
            self._usage.give_back(client_id, sku, hour, -credits_)

    def increments(self) -> list[Increment]:
        """Return all of them."""
        return [self._memory.increments[number] for number in sorted(self._memory.increments)]

    def attempts(self) -> list[Attempt]:
        """Return all of them."""
        return [self._memory.attempts[key] for key in sorted(self._memory.attempts)]

    def generations(self) -> list[Generation]:
        """Return all generations."""
        found = (one for number in sorted(self._memory.generations) for one in self._memory.generations[number])
        return [
            (one.increment_id, one.generation, one.identifier, one.period_start, one.period_end, one.event_at)
            for one in found
        ]

    def parts(self) -> list[tuple[int, str, datetime, int, int]]:
        """Return the parts."""
        return sorted(
            (number, part.sku, part.hour, part.credits_from, part.credits_to)
            for number, parts in self._memory.parts.items()
            for part in parts
        )

    def rollups(self) -> list[Rollup]:
        """Return the rows of usage."""
        return sorted(
            (*key, row.credits, row.planned, row.returned, row.returned_planned)
            for key, row in self._usage.rows.items()
        )

    def close(self) -> None:
        """Do nothing: there is nothing open."""


class PostgresBooks:
    """A migrated database of a test's own."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.log: IncrementLog = PostgresLog(engine)
        for event_name, each in CREDITS_PER_UNIT.items():
            self._run(
                "INSERT INTO meter (event_name, credits_per_unit) VALUES (:name, :each)", name=event_name, each=each
            )
        for sku, event_name in METER_OF.items():
            self._run("INSERT INTO sku_meter (sku, event_name) VALUES (:sku, :name)", sku=sku, name=event_name)

    def add(self, client_id: str, customer_id: str) -> None:
        """Add a client and link it."""
        with self._engine.begin() as connection:
            add_client(connection, client_id, 16)
            link(connection, client_id, customer_id)

    def use(self, client_id: str, sku: str, hour: datetime, credits_: int) -> None:
        """Add usage to a rollup, as a consumer's batch, or a correction, does."""
        statement = """
            INSERT INTO usage_rollup AS rollup (client_id, sku, hour, credits, quantity, returned)
            VALUES (:client_id, :sku, :hour, :credits, 1, :returned)
            ON CONFLICT (client_id, sku, hour) DO UPDATE
            SET credits = rollup.credits + excluded.credits, returned = rollup.returned + excluded.returned
        """
        self._run(statement, client_id=client_id, sku=sku, hour=hour, credits=credits_, returned=max(0, -credits_))

    def increments(self) -> list[Increment]:
        """Read all of them."""
        return [
            increment_of(row) for row in self._rows(f"SELECT {COLUMNS} FROM stripe_increment ORDER BY increment_id")
        ]

    def attempts(self) -> list[Attempt]:
        """Read all of them."""
        names = ", ".join(field.name for field in dataclasses.fields(Attempt))
        rows = self._rows(f"SELECT {names} FROM stripe_attempt ORDER BY increment_id, attempt")
        return [Attempt(**{**row, "outcome": row["outcome"] and Answer(row["outcome"])}) for row in rows]

    def generations(self) -> list[Generation]:
        """Read all generations."""
        names = "increment_id, generation, identifier, period_start, period_end, event_at"
        rows = self._rows(f"SELECT {names} FROM stripe_generation ORDER BY increment_id, generation")
        return [tuple(row.values()) for row in rows]

    def parts(self) -> list[tuple[int, str, datetime, int, int]]:
        """Read the parts."""
        rows = self._rows("SELECT increment_id, sku, hour, credits_from, credits_to FROM stripe_increment_part")
        return sorted(tuple(row.values()) for row in rows)

    def rollups(self) -> list[Rollup]:
        """Read the rows of usage."""
        names = "client_id, sku, hour, credits, planned, returned, returned_planned"
        return sorted(tuple(row.values()) for row in self._rows(f"SELECT {names} FROM usage_rollup"))

    def close(self) -> None:
        """Close the connections."""
        self._engine.dispose()

    def _run(self, statement: str, **given: object) -> None:
        with self._engine.begin() as connection:
            connection.execute(text(statement), given)

    def _rows(self, statement: str) -> Sequence[Any]:
        with self._engine.connect() as connection:
            return [dict(row) for row in connection.execute(text(statement)).mappings()]
