"""Books whose laws are checked as in production, and what tests ask of them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing import admin
from billing.observability.doctor.laws import examine_laws
from billing.observability.laws import liveness, progress, recording
from billing.observability.laws.check import check_laws
from billing.observability.laws.law import Checked, Law
from billing.observability.liveness import seen
from tests.integration.reconciling import Books, books_on


@contextmanager
def lawful(database: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    """Open books with two clients, a consumer that lives, and a beat that was seen."""
    monkeypatch.setattr(liveness, "PAUSE_SECONDS", 0.0)
    monkeypatch.setattr(progress, "PAUSE_SECONDS", 0.0)
    with books_on(database, redis_url) as books:
        books.client("acme", 100)
        books.client("bob", 50)
        note_consumer(books)
        with books.runtime.engine.begin() as connection:
            seen.note(connection, seen.BEAT, seen.BEAT)
        yield books


def note_consumer(books: Books) -> None:
    served = ",".join(map(str, range(books.settings.usage_queues)))
    with books.runtime.engine.begin() as connection:
        seen.note(connection, seen.CONSUMER, "one", details={"served": served, "queues": 4})


def checked(books: Books, law: Law) -> Checked:
    """Check one law as beat has it done, and return how it stands."""
    check_laws(books.runtime, laws=(law,))
    return stands(books, law.name)


def stands(books: Books, name: str) -> Checked:
    """Return a law's row."""
    with books.runtime.engine.connect() as connection:
        return recording.read(connection)[name]


def told(books: Books) -> list[str]:
    """Return what the operator was told, the oldest first: to nobody's webhook."""
    rows = [row for row in admin.alerts(books.settings) if row.kind == "law_broken"]
    assert {(row.client_id, row.delivery) for row in rows} <= {("", "none")}
    return [row.found for row in reversed(rows)]


def examined(books: Books, verdict: str) -> list[str]:
    """Return what doctor says of the laws, with something to do wherever it is not ok."""
    findings = list(examine_laws(books.runtime))
    assert all(finding.advice for finding in findings if finding.verdict.value != "ok")
    return [finding.seen for finding in findings if finding.verdict.value == verdict]


def rested(books: Books) -> None:
    """Have the log's last row be of long ago."""
    silent = (datetime.now(UTC) - progress.LOG_SILENT_MAX - timedelta(seconds=1)).isoformat()
    path = "'{log,since}'"
    books.sql(f"UPDATE law_check SET remembered = jsonb_set(remembered, {path}, to_jsonb(%s::text))", silent)


def park(books: Books, task_id: str, expires: timedelta, *, client: str = "acme", credits_: int = 1) -> None:
    """Write a task that waits."""
    books.sql(
        "INSERT INTO parked_task (run_id, client_id, task, task_id, sku, credits, available, body, content_type,"
        " content_encoding, headers, properties, exchange, routing_key, times, parked_at, expires_at) VALUES"
        " (gen_random_uuid(), %s, 'task', %s, 'page', %s, 0, '', '', '', '', '', '', '', 1, now(), %s)",
        client,
        task_id,
        credits_,
        datetime.now(UTC) + expires,
    )
