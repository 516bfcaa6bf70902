"""One client whole: grants, holds, what it used last, what is parked, and its usage over time from the rollup."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import Connection, func, select

from billing.catalog.clients import Client, get_client
from billing.credits.auditing import BucketReading
from billing.fulfillment.reading import UsageRow, usage_page
from billing.observability.flower.billing_page.holds import LOOKED_AT_MAX, HoldLine, hold_line
from billing.observability.flower.billing_page.lists import ParkedLine, parked_lines
from billing.observability.flower.billing_page.reading import reading
from billing.receipts.charts import TimeChart, time_chart
from billing.schema.stripe import stripe_customer
from billing.schema.tables import credit_grant, usage_rollup
from billing.task.runtime import Runtime

#: L9: grants, runs, parked tasks and holds that the page shows.
GRANTS_MAX: Final = 100
USED_MAX: Final = 10
PARKED_MAX: Final = 10
HOLDS_MAX: Final = 50


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Span:
    """A time that a chart may have: how long, what a bar is of, and how a bar is named."""

    words: str
    bars: int
    unit: str
    step: timedelta
    name: str


#: What a reader may choose, by the word in the address.
SPANS: Final = {
    "24h": Span(words="24 h", bars=24, unit="hour", step=timedelta(hours=1), name="%-d %B, %H:00"),
    "7d": Span(words="7 d", bars=7 * 24, unit="hour", step=timedelta(hours=1), name="%-d %B, %H:00"),
    "30d": Span(words="30 d", bars=30, unit="day", step=timedelta(days=1), name="%-d %B"),
}


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GrantLine:
    """A grant as the ledger has it."""

    grant_id: int
    kind: str
    credits: int
    priority: int
    created_at: datetime
    expires_at: datetime | None
    voided_at: datetime | None
    skus: Sequence[str]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClientBooks:
    """What PostgreSQL has of a client."""

    client: Client
    customer_id: str | None
    grants: Sequence[GrantLine]
    more_grants: bool
    used: Sequence[UsageRow]
    parked: Sequence[ParkedLine]
    chart: TimeChart | None
    used_credits: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ClientBucket:
    """What Redis has of a client. `holds` are the first of `held`, oldest first."""

    bucket: BucketReading
    holds: Sequence[HoldLine]
    held: int
    #: Its shard has as many holds as were looked at: there may be more of the client.
    more: bool


def read_books(runtime: Runtime, client_id: str, span: str) -> ClientBooks:
    """Return what PostgreSQL has of a client. Raises `UnknownClient`."""
    now = runtime.clock.now()
    with reading(runtime) as connection:
        found = get_client(connection, client_id)
        grants = _grants(connection, client_id)
        sums = _usage(connection, client_id, SPANS[span], now)
        return ClientBooks(
            client=found,
            customer_id=connection.scalar(
                select(stripe_customer.c.customer_id).where(stripe_customer.c.client_id == client_id)
            ),
            grants=grants[:GRANTS_MAX],
            more_grants=len(grants) > GRANTS_MAX,
            used=usage_page(connection, client_id, limit=USED_MAX),
            parked=parked_lines(connection, limit=PARKED_MAX, client_id=client_id),
            chart=time_chart(SPANS[span].unit, sums),
            used_credits=sum(sums.values()),
        )


def read_bucket(runtime: Runtime, client_id: str) -> ClientBucket:
    """Return what Redis has of a client, whether PostgreSQL knows it or not."""
    bucket = runtime.buckets.audit([client_id], holds_max=0)[client_id]
    now_ms = bucket.at_ms or runtime.buckets.time_ms()
    holds = sorted(runtime.buckets.held(client_id, among=LOOKED_AT_MAX), key=lambda hold: hold.created_ms)
    return ClientBucket(
        bucket=bucket,
        holds=[hold_line(hold, now_ms) for hold in holds[:HOLDS_MAX]],
        held=len(holds),
        more=len(holds) >= LOOKED_AT_MAX,
    )


def _grants(connection: Connection, client_id: str) -> list[GrantLine]:
    columns = [credit_grant.c[field.name] for field in dataclasses.fields(GrantLine)]
    newest = (
        select(*columns)
        .where(credit_grant.c.client_id == client_id)
        .order_by(credit_grant.c.grant_id.desc())
        .limit(GRANTS_MAX + 1)
    )
    return [GrantLine(**row) for row in connection.execute(newest).mappings()]


def _usage(connection: Connection, client_id: str, span: Span, now: datetime) -> Mapping[str, int]:
    """Return the credits of each bar of a span that ends with the hour, or the day, of now."""
    last = now.replace(minute=0, second=0, microsecond=0)
    if span.unit == "day":
        last = last.replace(hour=0)
    begins = [last - span.step * before for before in range(span.bars - 1, -1, -1)]
    hour = func.date_trunc(span.unit, usage_rollup.c.hour).label("begin")
    sums = (
        select(hour, func.sum(usage_rollup.c.credits).label("credits"))
        .where(usage_rollup.c.client_id == client_id, usage_rollup.c.hour >= begins[0])
        .group_by(hour)
    )
    found = {row.begin: int(row.credits) for row in connection.execute(sums)}
    return {begin.strftime(span.name): found.get(begin, 0) for begin in begins}
