"""What the searches of PostgreSQL's increment log find is what the protocol says of each increment, one by one."""

from __future__ import annotations

import dataclasses
import itertools
from datetime import timedelta

import pytest
import sqlalchemy

from billing.catalog.clients import add_client
from billing.core.settings import Settings
from billing.schema.stripe import stripe_increment
from billing.sinks.sink import Kind
from billing.sinks.sync import looks, protocol
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.log import Open
from billing.sinks.sync.postgres import push_statements as sql
from billing.sinks.sync.postgres.log import PostgresLog
from billing.sinks.sync.postgres.rows import row_of
from billing.sinks.sync.protocol import AHEAD_MAX, LEASE, RESEND_WITHIN
from tests.integration.syncing import NOON

pytestmark = pytest.mark.integration

INSTANT = timedelta(microseconds=1)
FIRST = (
    None,
    NOON - RESEND_WITHIN,
    NOON - RESEND_WITHIN + INSTANT,
    NOON,
    NOON + AHEAD_MAX,
    NOON + AHEAD_MAX + INSTANT,
)
CLOSES = (None, NOON - INSTANT, NOON, NOON + INSTANT)
LEASES = (None, NOON - INSTANT, NOON, NOON + AHEAD_MAX + LEASE, NOON + AHEAD_MAX + LEASE + INSTANT)
BOOKS = (None, "test", "live")
EVENT = (timedelta(0), INSTANT)
#: Far more than there are.
MOST = 10_000


def one(number: int, **given: object) -> Increment:
    """Return an increment of a customer of its own."""
    values: dict[str, object] = {
        "increment_id": number,
        "client_id": f"client-{number % 2}",
        "customer_id": f"cus_{number}",
        "event_name": ("pages", "searches")[number % 3 == 0],
        "kind": Kind.METER_EVENT,
        "period_start": NOON.replace(day=1, hour=0),
        "period_end": NOON.replace(month=4, day=1, hour=0),
        "units": 1,
        "credits_per_unit": 1,
        "generation": 1,
        "event_at": NOON,
        "identifier": f"b1-{number}",
        "planned_at": NOON,
        "attempts": number % 5,
        "checked_at": None if number % 4 == 0 else NOON - timedelta(seconds=number % 7),
        **given,
    }
    return Increment(**values)  # type: ignore[arg-type]


@pytest.fixture
def increments(engine: sqlalchemy.Engine, database: Settings) -> list[Increment]:
    """Write one increment of each combination that a search looks at."""
    fields = [
        {"state": state, "first_attempt_at": first, "sent_to": books, "closes_at": closes, "event_at": NOON + ahead}
        for state, first, books, closes, ahead in itertools.product(
            (State.PENDING, State.AMBIGUOUS), FIRST, BOOKS, CLOSES, EVENT
        )
    ]
    fields += [{"state": State.SENDING, "lease_until": lease, "sent_to": books} for lease in LEASES for books in BOOKS]
    fields += [
        {"state": state, "first_attempt_at": first, "sent_to": books}
        for state, first, books in itertools.product(State, (None, NOON), BOOKS)
    ]
    with engine.begin() as connection:
        for client_id in ("client-0", "client-1"):
            add_client(connection, client_id, database.shards)
        written = [row_of(one(number, **given)) for number, given in enumerate(fields)]
        for row in written:
            del row["increment_id"]
        made = connection.execute(
            sqlalchemy.insert(stripe_increment).returning(
                stripe_increment.c.increment_id, sort_by_parameter_order=True
            ),
            written,
        ).scalars()
        ids = list(made)
    return [
        one(number, **given, increment_id=increment_id)
        for (number, given), increment_id in zip(enumerate(fields), ids, strict=True)
    ]


@pytest.mark.parametrize("client_id", [None, "client-1"])
@pytest.mark.parametrize("without", [(), ("searches",), ("searches", "pages")])
def test_each_search_finds_what_the_protocol_says_in_its_order(
    engine: sqlalchemy.Engine, increments: list[Increment], client_id: str | None, without: tuple[str, ...]
) -> None:
    """Given increments at each bound, then none is found too early, too late, or not at all."""
    log = PostgresLog(engine)
    search = Open(books="test", now=NOON, most=MOST, client_id=client_id, without=without)
    own = [found for found in increments if client_id in (None, found.client_id) and found.event_name not in without]

    lost = [found.increment_id for found in own if protocol.is_lost(found, NOON)]
    to_send = [found for found in own if protocol.may_send(found, books="test", now=NOON)]
    to_check = [found for found in own if looks.may_check(found, books="test")]

    assert log.find_lost(search) == lost
    assert log.find_open(search) == sorted(to_send, key=lambda found: (found.attempts, found.increment_id))
    assert log.find_unconfirmed(search) == sorted(
        to_check, key=lambda found: (found.checked_at is not None, found.checked_at or NOON, found.increment_id)
    )
    assert without == ("searches", "pages") or (lost and to_send and to_check)


def test_a_search_is_bounded(engine: sqlalchemy.Engine, increments: list[Increment]) -> None:
    log = PostgresLog(engine)
    search = Open(books="test", now=NOON, most=3)

    assert len(increments) > 100
    assert [len(find(search)) for find in (log.find_lost, log.find_open, log.find_unconfirmed)] == [3, 3, 3]


def test_a_change_writes_all_that_is_not_of_a_generation(
    engine: sqlalchemy.Engine, increments: list[Increment]
) -> None:
    """Given an increment as it was written, then it is read so; changed in every field, it is read as changed."""
    log = PostgresLog(engine)
    ours = increments[0]
    assert log.change(ours.increment_id, lambda locked: locked) == ours
    changed = dataclasses.replace(
        ours,
        state=State.QUARANTINED,
        reason="changed",
        closes_at=NOON + INSTANT,
        attempts=7,
        first_attempt_at=NOON + 2 * INSTANT,
        last_attempt_at=NOON + 3 * INSTANT,
        sent_to="live",
        lease_until=NOON + 4 * INSTANT,
        checked_at=NOON + 5 * INSTANT,
        absent_since=NOON + 6 * INSTANT,
        absence_checks=3,
        confirmed_at=NOON + 7 * INSTANT,
        withdrawn_at=NOON + 8 * INSTANT,
    )

    assert log.change(ours.increment_id, lambda _: changed) == changed

    assert log.change(ours.increment_id, lambda locked: locked) == changed
    assert log.change(increments[1].increment_id, lambda locked: locked) == increments[1]


@pytest.mark.parametrize(
    ("statement", "indexes"),
    [
        (sql.FIND_OPEN, {"stripe_increment_open_idx"}),
        (sql.FIND_LOST, {"stripe_increment_in_flight_key", "stripe_increment_open_idx"}),
        (sql.FIND_UNCONFIRMED, {"stripe_increment_unconfirmed_idx"}),
    ],
)
def test_a_search_does_not_grow_with_what_is_done(
    engine: sqlalchemy.Engine, increments: list[Increment], statement: sqlalchemy.TextClause, indexes: set[str]
) -> None:
    """L9: given twenty thousand increments that are confirmed, then a search reads an index that has none of them."""
    done = dataclasses.replace(increments[0], state=State.CONFIRMED, sent_to="test")
    rows = []
    for number in range(20_000):
        row = row_of(dataclasses.replace(done, customer_id=f"done_{number}", identifier=f"done-{number}"))
        del row["increment_id"]
        rows.append(row)
    given = {
        "now": NOON,
        "longest": NOON + LEASE,
        "resend_from": NOON,
        "too_old": NOON,
        "ahead": NOON,
        "books": "test",
        "client_id": None,
        "without": [],
        "most": 100,
    }
    with engine.begin() as connection:
        connection.execute(sqlalchemy.insert(stripe_increment), rows)
        connection.execute(sqlalchemy.text("ANALYZE stripe_increment"))
        named = {name: given[name] for name in statement.compile().params}
        plan = connection.execute(sqlalchemy.text(f"EXPLAIN {statement.text}"), named).scalars().all()

    assert any(index in line for line in plan for index in indexes), plan
