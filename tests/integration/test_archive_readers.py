"""Whatever reads the history reads its archived months: no sum, receipt or law changes when a month moves (L7)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing import admin
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.explaining.explain import explain
from billing.reconciliation.report import Report
from billing.recovery.facts import logged_runs
from billing.recovery.writing import write_shard
from billing.task.charged import is_charged, told_charges
from tests.integration.archiving import archive
from tests.integration.reconciling import SHARDS, Books, books_on

pytestmark = pytest.mark.integration


@pytest.fixture
def books(database: Settings, redis_url: str) -> Iterator[Books]:
    """Open books of a client that has used two grants, has debt, and holds something."""
    with books_on(database, redis_url) as opened:
        opened.client("acme", 100, 50)
        opened.use("acme", 60, 10)
        opened.use("acme", 75, held=8)
        opened.use("acme", 12, held=0)
        yield opened


def laws(report: Report) -> list[Any]:
    """Return each law's verdict and what was compared, and what was found."""
    assert report.ok, report.discrepancies
    return [(law.law, law.verdict, law.compared) for law in report.laws]


def told(books: Books, start: datetime, at: datetime) -> list[Any]:
    """Return what every reader says of acme."""
    settings, end = books.settings, start + timedelta(days=40)
    runs = [row[0] for row in books.sql("SELECT DISTINCT run_id FROM usage_ever ORDER BY 1")]
    nobody = uuid.uuid4()
    with books.runtime.engine.connect() as connection:
        charged = [is_charged(connection, run) for run in (*runs, nobody)]
        told_of = told_charges(connection, [("acme", run) for run in (*runs, nobody)])
        logged = logged_runs(connection, [*runs, nobody])
    return [
        laws(books.reconcile()),
        list(admin.receipt(settings, "acme", start, end)),
        admin.usage(settings, "acme"),
        admin.usage_totals(settings, ["acme"]),
        list(admin.all_usage(settings, "acme")),
        admin.balance(settings, "acme"),
        admin.balance_at(settings, "acme", at),
        [explain(books.runtime, str(run)) for run in runs],
        (charged, told_of == set(runs), sorted(logged.items())),
    ]


def test_given_a_month_when_it_is_archived_and_attached_again_then_every_reader_says_the_same(books: Books) -> None:
    now = datetime.now(UTC)
    start = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    before = told(books, start, now)
    assert sum(line.credits for line in before[1]) == 157
    assert before[-1][0] == [True, True, True, False]

    months = [part for part in admin.partitions(books.settings).partitions if part.is_month and part.rows]
    for part in months:
        assert part.start is not None
        assert archive(books.settings, part.start).place == "archive"

    assert books.sql("SELECT count(*) FROM usage_history") == [(0,)]
    assert told(books, start, now) == before
    shard = shard_of("acme", SHARDS)
    books.runtime.buckets.close(shard)
    write_shard(books.runtime, shard)
    assert laws(books.reconcile()) == before[0], "a rebuilt bucket is what it was"
    with pytest.raises(InvalidValue, match="the last use of"):
        admin.set_price(books.settings, "page", 7, unit="page", effective_at=now - timedelta(days=1))
    for part in months:
        admin.attach_month(books.settings, part.month)
    assert books.sql("SELECT count(*) FROM archive.usage_history") == [(0,)]
    assert laws(books.reconcile()) == before[0]
