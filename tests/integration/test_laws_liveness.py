"""L9 in production: what nobody serves, what becomes no row, and what waits for too long is told."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.core.errors import NotAllowed
from billing.observability.laws import liveness, progress, waiting
from billing.observability.laws.liveness import Liveness
from billing.observability.liveness import seen
from billing.schema.months import name_of
from tests.integration.checking_laws import checked, lawful, note_consumer, park, rested, told
from tests.integration.reconciling import Books
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def books(database: Any, redis_url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Books]:
    """Open books in order."""
    with lawful(database, redis_url, monkeypatch) as books:
        yield books


def test_l9_nobody_who_is_seen_is_told(books: Books) -> None:
    """Given no consumer, or beat silent for long, then the law is broken until they are seen again."""
    assert checked(books, Liveness()).violations == 0
    books.sql("DELETE FROM last_seen WHERE process = 'consumer'")
    assert checked(books, Liveness()).found == "no consumer is seen"
    books.sql("UPDATE last_seen SET seen_at = now() - interval '31 min'")
    assert checked(books, Liveness()).found == "no consumer is seen", "beat that is back may have sent this very check"
    assert checked(books, Liveness()).found == "no consumer is seen; beat was not seen for 30 min"
    note_consumer(books)
    with books.runtime.engine.begin() as connection:
        seen.note(connection, seen.BEAT, seen.BEAT)
    assert checked(books, Liveness()).violations == 0
    assert told(books) == ["L9 liveness: no consumer is seen"]


def test_l9_charges_that_become_no_rows_are_told(books: Books) -> None:
    """Given tasks that settle while the log gets no row for minutes, then that is told; a fleet at rest is not."""
    books.use("acme", 3)
    checked(books, Liveness())
    rested(books)
    assert checked(books, Liveness()).violations == 0
    books.use("acme", 4, write=False)
    rested(books)
    found = checked(books, Liveness()).found
    said = "the usage history got no row for 10 min, though client acme was charged 4 credits that are not in it"
    assert found == said
    books.deliver()
    # PostgreSQL counts what a session inserted up to a second later.
    wait_until(lambda: checked(books, Liveness()).violations == 0, "the log is seen to have a new row")
    assert told(books) == [f"L9 liveness: {found}"]


def test_l9_the_first_charge_after_a_rest_is_on_its_way_and_no_breach(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a fleet that rested, and a task that ends as the check looks, then its row comes, and nobody is told."""
    books.use("acme", 3)
    checked(books, Liveness())
    rested(books)
    books.use("acme", 4, write=False)
    looks: list[object] = []
    look = progress._charged

    def look_and_deliver(runtime: Any) -> tuple[str, int] | None:
        found = look(runtime)
        looks.append(found)
        books.deliver()
        return found

    monkeypatch.setattr(progress, "_charged", look_and_deliver)
    assert checked(books, Liveness()).violations == 0
    assert looks == [("acme", 4)]
    assert told(books) == []


def test_l9_what_waits_for_too_long_is_told(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an outbox, a parked task, an increment and a month that should have gone on, then each is named."""
    monkeypatch.setattr(waiting, "OUTBOX_MAX", timedelta(seconds=-1))
    books.use("acme", 3)
    books.plan("acme", state="pending")
    books.sql("UPDATE stripe_increment SET planned_at = now() - interval '2 days'", owner=True)
    month = (datetime.now(UTC).replace(day=1) + timedelta(days=32)).replace(day=1)
    books.sql(f"DROP TABLE {name_of(month)}")
    park(books, "past", timedelta(minutes=-11))
    found = checked(books, Liveness()).found.split("; ")
    assert found == [
        "0 usage events wait in outboxes, the oldest for 0 s",
        "1 parked tasks wait past their end",
        "1 increments are planned for more than a day, and not sent",
        f"the usage history has no partition for {month:%Y-%m}",
    ]


def test_l9_a_parked_task_that_can_be_paid_and_waits_is_told(books: Books) -> None:
    """Given a task that could start at the last check and now, then that is told; one that cannot be paid may wait."""
    park(books, "rich", timedelta(days=1), client="bob", credits_=50)
    park(books, "poor", timedelta(days=1), client="acme", credits_=101)
    assert checked(books, Liveness()).violations == 0
    since = (datetime.now(UTC) - progress.PARKED_MAX - timedelta(seconds=1)).isoformat()
    books.sql(
        "UPDATE law_check SET remembered = jsonb_set(remembered, '{parked}', (SELECT jsonb_object_agg(key,"
        " jsonb_build_array(value -> 0, %s::text)) FROM jsonb_each(remembered -> 'parked'))) WHERE law = 'L9 liveness'",
        since,
    )
    assert checked(books, Liveness()).found == (
        "parked tasks of 1 clients can be paid and are not started, as of client bob"
    )
    books.sql("DELETE FROM parked_task")
    assert checked(books, Liveness()).violations == 0


def test_l9_what_a_login_may_not_see_hides_nothing_else(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a part that this login may not look at, then what the other parts find is told."""

    def forbidden(runtime: Any, remembered: dict[str, Any]) -> Iterator[str]:
        raise NotAllowed("PostgreSQL: may not read stripe_increment")
        yield ""

    monkeypatch.setattr(liveness, "PARTS", (forbidden, *liveness.PARTS))
    books.sql("DELETE FROM last_seen WHERE process = 'consumer'")
    assert checked(books, Liveness()).found == "no consumer is seen"
