"""What the tests of receipts share: a line, an invented month, a planner that marks the tables as that for Stripe."""

from __future__ import annotations

import dataclasses
import io
import random
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg

from billing.admin.receipt_line import ReceiptHead, ReceiptLine, Reported
from billing.core.clock import to_milliseconds
from billing.events.usage_event import UsageEvent
from billing.receipts.forms import FORMS
from billing.receipts.summary import Tally
from tests.usage_events import paid_line, usage_event

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

#: What the invented client buys: SKU, unit, credits per unit.
_SOLD = (("page-capture", "page", 5), ("premium-search", "search", 25), ("storage-gib", "GiB", 2))


def month(*, days: int = 21, most: int = 14) -> list[ReceiptLine]:
    """Invent the lines of a month: the same each time, with a correction, a late line, a dry run and debt."""
    seeded = random.Random(4)
    lines = []
    for day in range(days):
        for number in range(seeded.randint(2, most)):
            sku, unit, price = seeded.choice(_SOLD)
            quantity = seeded.randint(1, 9)
            lines.append(
                dataclasses.replace(
                    LINE,
                    run_id=uuid.UUID(int=seeded.getrandbits(128), version=4),
                    correlation_id=str(uuid.UUID(int=seeded.getrandbits(128), version=4)),
                    task=f"shop.tasks.{sku.split('-')[0]}",
                    sku=sku,
                    unit=unit,
                    quantity=quantity,
                    credits_per_unit=price,
                    credits=quantity * price,
                    grants={12: quantity * price - 2, 0: 2} if number == 3 else {12: quantity * price},
                    occurred_at=HEAD.start + timedelta(days=day, hours=8, minutes=7 * number),
                    late=number == 5,
                    reported=(Reported(increment_id=1 + day // 7, state="confirmed", credits=quantity * price),),
                )
            )
    wrong, tried = lines[2], lines[3]
    lines.append(
        dataclasses.replace(
            wrong,
            run_id=uuid.UUID(int=1, version=4),
            quantity=-1,
            credits=-wrong.credits // wrong.quantity,
            grants={12: -wrong.credits // wrong.quantity},
            corrects=wrong.run_id,
            corrects_line=wrong.line,
            occurred_at=HEAD.start + timedelta(days=days, hours=9),
            reported=(),
        )
    )
    free = dataclasses.replace(tried, credits=0, credits_per_unit=None, grants={}, reported=(), mode="dry_run")
    lines.append(dataclasses.replace(free, run_id=uuid.UUID(int=2, version=4)))
    return sorted(lines, key=lambda line: line.occurred_at)


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


def event(at: datetime, shares: list[tuple[int, int]] | None = None, *, sku: str = "page", **given: Any) -> UsageEvent:
    """Make an event of one line that ended at an instant."""
    milliseconds = to_milliseconds(at)
    line = paid_line(sku, 1, [(1, 10)] if shares is None else shares)
    return usage_event(lines=[line], occurred_at=milliseconds, at_milliseconds=milliseconds, **given)


def written(form: str, lines: Iterable[ReceiptLine], **changes: Any) -> str:
    """Return a receipt in some form."""
    return "".join(FORMS[form](dataclasses.replace(HEAD, **changes), lines, Tally(), io.StringIO(newline="")))
