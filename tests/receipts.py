"""What the tests of receipts share: a line, and a planner that does to the tables what the report to Stripe does."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import UTC, datetime
from typing import Any

import psycopg

from billing.admin.receipt_line import ReceiptHead, ReceiptLine, Reported

HEAD = ReceiptHead(
    client_id="acme",
    start=datetime(2026, 11, 1, tzinfo=UTC),
    end=datetime(2026, 12, 1, tzinfo=UTC),
    read_at=datetime(2026, 11, 21, 12, 30, tzinfo=UTC),
)
LINE = ReceiptLine(
    run_id=uuid.UUID("01978a3e-0000-7000-8000-000000000001"),
    line=0,
    correlation_id="task-1",
    task="worker_tasks.capture.capture_page",
    sku="page-capture",
    quantity=9,
    unit="page",
    price_version=4,
    credits_per_unit=5,
    credits=45,
    grants={12: 30, 15: 10, 0: 5},
    occurred_at=datetime(2026, 11, 21, 8, 0, 0, 250_000, tzinfo=UTC),
    late=False,
    corrects=None,
    corrects_line=None,
    reported=(Reported(increment_id=7, state="confirmed", credits=40),),
)
FREE = dataclasses.replace(
    LINE, line=1, sku="kib", quantity=0, unit="KiB", credits_per_unit=None, credits=0, grants={}, reported=()
)

_PLANNED = """
    SELECT sku, hour, planned, credits FROM usage_rollup WHERE client_id = %s AND credits > planned ORDER BY sku, hour
"""
_INCREMENT = """
    INSERT INTO stripe_increment (client_id, customer_id, event_name, period_start, period_end, units, event_at,
                                  identifier, state)
    VALUES (%(client)s, 'cus_' || %(client)s, 'credits', date_trunc('month', %(hour)s, 'UTC'),
            date_trunc('month', %(hour)s, 'UTC') + interval '1 month', %(units)s,
            %(hour)s + %(number)s * interval '1 minute', gen_random_uuid(), %(state)s)
    RETURNING increment_id
"""
_PART = """
    INSERT INTO stripe_increment_part (increment_id, sku, hour, credits_from, credits_to) VALUES (%s, %s, %s, %s, %s)
"""
_ADVANCE = "UPDATE usage_rollup SET planned = %s WHERE client_id = %s AND sku = %s AND hour = %s"


def plan(session: psycopg.Connection[Any], client_id: str, *, state: str = "pending", number: int = 1) -> int:
    """Make one increment of everything that a client used in one month and no increment carries; return its id."""
    with session.transaction():
        parts = session.execute(_PLANNED, [client_id]).fetchall()
        units = sum(credits_ - planned for _, _, planned, credits_ in parts)
        values = {"client": client_id, "hour": parts[0][1], "units": units, "number": number, "state": state}
        row = session.execute(_INCREMENT, values).fetchone()
        assert row is not None
        for sku, hour, planned, credits_ in parts:
            session.execute(_PART, [row[0], sku, hour, planned, credits_])
            session.execute(_ADVANCE, [credits_, client_id, sku, hour])
        return int(row[0])
