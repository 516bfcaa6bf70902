"""What the tests of the report per client, meter and period share: usage at chosen hours, increments as rows.

Usage goes through the consumer's own log. Increments are written as a planner leaves them, each part of which row, so
that every state and every oddity can be made, also those that no planner makes in a test's time.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

import psycopg

from billing import admin
from billing.catalog.clients import add_client
from billing.connections import postgres
from billing.core.clock import SystemClock, to_milliseconds
from billing.core.settings import Settings
from billing.fulfillment.postgres_log import PostgresUsageLog
from billing.reconciliation.invoice_row import InvoiceRow
from billing.reconciliation.invoices import Invoices, read_invoices
from billing.reconciliation.totals import Totals
from billing.task.runtime import Runtime
from tests.usage_events import delivered, paid_line, usage_event

METER = "billing_credits"


def write_usage(settings: Settings, client_id: str, credits: int, at: datetime, *, sku: str = "page") -> None:
    """Write usage that ended at an instant to the log, as the consumer does."""
    milliseconds = to_milliseconds(at)
    line = paid_line(sku, 1, [(0, credits)])
    event = usage_event(client_id, lines=[line], at_milliseconds=milliseconds, occurred_at=milliseconds)
    log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
    try:
        assert log.write([delivered(event)]).events == 1
    finally:
        log.close()


@contextmanager
def invoicing_on(database: Settings, **changes: Any) -> Iterator[Invoicing]:
    """Open the books of a database, without Redis."""
    settings = dataclasses.replace(database, **changes)
    found = Invoicing(settings)
    try:
        yield found
    finally:
        found.runtime.close()
        admin.close(settings)


class Invoicing:
    """Clients, their usage, their increments."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.runtime = Runtime(lambda: settings, SystemClock())
        self._numbers = itertools.count(1)

    def client(self, client_id: str, customer_id: str | None = None) -> str:
        """Add a client, linked if a customer is given."""
        with self.runtime.engine.begin() as connection:
            add_client(connection, client_id, self.settings.shards)
        if customer_id is not None:
            self.sql("INSERT INTO stripe_customer (client_id, customer_id) VALUES (%s, %s)", client_id, customer_id)
        return client_id

    def period(self, customer_id: str, start: datetime, end: datetime, *, meter: str = METER) -> None:
        """Let a billing period be known."""
        self.sql(
            "INSERT INTO stripe_period (customer_id, event_name, period_start, period_end, read_at)"
            " VALUES (%s, %s, %s, %s, now())",
            *(customer_id, meter, start, end),
        )

    def use(self, client_id: str, credits: int, at: datetime, *, sku: str = "page") -> None:
        """Write usage that ended at an instant to the log."""
        write_usage(self.settings, client_id, credits, at, sku=sku)

    def give_back(self, client_id: str, credits: int, at: datetime, *, sku: str = "page") -> None:
        """Write a correction that returns credits to the log and its rollup, as adjustments leave it."""
        run = usage_event(client_id, at_milliseconds=to_milliseconds(at)).run_id
        self.sql(
            "INSERT INTO usage_history SELECT (jsonb_populate_record(kept, jsonb_build_object('run_id', %s::text,"
            " 'credits', -%s::bigint, 'occurred_at', %s::timestamptz, 'corrects', run_id, 'corrects_line', line))).*"
            " FROM usage_history AS kept WHERE client_id = %s AND sku = %s LIMIT 1",
            *(str(run), credits, at, client_id, sku),
        )
        self.sql(
            "UPDATE usage_rollup SET credits = credits - %s, returned = returned + %s"
            " WHERE client_id = %s AND sku = %s AND hour = date_trunc('hour', %s::timestamptz, 'UTC')",
            *(credits, credits, client_id, sku, at),
        )

    def increment(
        self,
        client_id: str,
        period: tuple[datetime, datetime],
        parts: Mapping[tuple[str, datetime], tuple[int, int]],
        *,
        state: str = "confirmed",
        meter: str = METER,
        credits_per_unit: int = 1,
        **columns: Any,
    ) -> int:
        """Write an increment with its parts ((SKU, hour) → from, up to), and advance their rows; return its number."""
        start, end = period
        first = min(hour for _, hour in parts)
        number = next(self._numbers)
        begins = start.replace(minute=0, second=0, microsecond=0)
        values: dict[str, Any] = {
            "client_id": client_id,
            "customer_id": f"cus_{client_id}",
            "event_name": meter,
            "period_start": start,
            "period_end": end,
            "units": sum(upto - low for low, upto in parts.values()) // credits_per_unit,
            "credits_per_unit": credits_per_unit,
            "identifier": f"b1-{client_id}-{number}",
            "state": state,
            "reason": "too late for its invoice" if state == "written_off" else "",
            "event_at": start.replace(second=30, microsecond=0) + timedelta(minutes=number),
            "carries_from": first if first < begins else None,
            **columns,
        }
        if state != "pending":
            values.setdefault("last_attempt_at", values["event_at"] + timedelta(minutes=1))
        names = ", ".join(values)
        row = self.sql(
            f"INSERT INTO stripe_increment ({names}) VALUES ({', '.join(['%s'] * len(values))}) RETURNING increment_id",
            *values.values(),
        )
        for (sku, hour), (low, upto) in parts.items():
            self.sql("INSERT INTO stripe_increment_part VALUES (%s, %s, %s, %s, %s)", row[0][0], sku, hour, low, upto)
            self.sql(
                "UPDATE usage_rollup SET planned = planned + %s WHERE client_id = %s AND sku = %s AND hour = %s",
                upto - low,
                client_id,
                sku,
                hour,
            )
        return int(row[0][0])

    def sql(self, statement: str, *values: object, owner: bool = False) -> list[tuple[Any, ...]]:
        """Run a statement; as the owner who switches the triggers off."""
        with psycopg.connect(self.settings.database_url, autocommit=True) as connection:
            if owner:
                connection.execute("SET session_replication_role = replica")
                for table in re.findall(r"(?:UPDATE|DELETE FROM|INSERT INTO) (\w+)", statement):
                    connection.execute(f"ALTER TABLE {table} DISABLE TRIGGER USER".encode())
            cursor = connection.execute(statement.encode(), values)
            return cursor.fetchall() if cursor.description else []

    def invoices(self, *client_ids: str, stripe: bool = False, every: bool = True, totals: Any = None) -> Invoices:
        """Return the table."""
        given: Totals | None = totals
        return read_invoices(self.runtime, client_ids or None, stripe=stripe, every=every, totals=given)

    def rows(self, client_id: str = "acme", **options: Any) -> list[InvoiceRow]:
        """Return a client's rows."""
        return list(self.invoices(client_id, **options).rows)


def told(row: InvoiceRow, *names: str) -> tuple[int | None, ...]:
    """Return some numbers of a row."""
    return tuple(getattr(row, name) for name in names)
