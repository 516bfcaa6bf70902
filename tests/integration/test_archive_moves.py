"""A month is moved whole or not at all: killed anywhere and run again, beside consumers, and only when it may be."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import sqlalchemy

from billing import admin
from billing.connections import postgres
from billing.core.clock import to_milliseconds
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.fulfillment.log import BatchReport, LogUnready, UsageLog
from billing.schema.archiving import InUse
from tests.integration.archiving import archive, place_of
from tests.receipts import plan
from tests.sessions import wait_for_the_dead
from tests.usage_events import delivered, usage_event
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
Session = psycopg.Connection[Any]


@pytest.fixture
def settings(database: Settings) -> Iterator[Settings]:
    """Give the settings of this test's database; what was connected is closed."""
    yield database
    admin.close(database)


@pytest.fixture
def used(clients: Callable[..., None], log: UsageLog) -> datetime:
    """Return the present, in which acme has used something."""
    clients("acme")
    now = datetime.now(UTC)
    log.write([delivered(usage_event(at_milliseconds=to_milliseconds(now), task_id="run"))])
    return now


def attach(settings: Settings, month: datetime) -> Any:
    """Move a month back."""
    return admin.attach_month(settings, f"{month:%Y-%m}")


@pytest.mark.parametrize(
    ("point", "left"),
    [
        ("detach 1 after", ("history", True)),
        ("detach 2 after", ("history", True)),
        ("detach 3 before", ("history", True)),
        ("detach 3 after", ("archive", False)),
        ("attach 3 before", ("archive", False)),
        ("attach 3 after", ("history", False)),
    ],
)
def test_given_a_move_that_is_killed_when_run_again_then_it_is_complete_and_nothing_is_lost(
    settings: Settings, session: Session, log: UsageLog, used: datetime, point: str, left: tuple[str, bool]
) -> None:
    """L7: SIGKILL after each step and inside the last one. The list says where it was left."""
    verb, step, when = point.split()
    if verb == "attach":
        archive(settings, used)
    rows = session.execute("SELECT * FROM usage_ever").fetchall()
    month = f"{used:%Y-%m}"
    command = [sys.executable, "-m", "tests.integration.killed_mover", settings.database_url, verb, month, step]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    died = subprocess.run([*command, when], env=environment, capture_output=True, text=True, timeout=240, check=False)
    assert died.returncode == -signal.SIGKILL, died.stderr
    wait_for_the_dead(settings.database_url)

    [found] = [part for part in admin.partitions(settings).partitions if part.month == month]
    assert (found.place, found.prepared) == left
    assert session.execute("SELECT * FROM usage_ever").fetchall() == rows
    again = usage_event(at_milliseconds=to_milliseconds(used), task_id="run")
    assert log.write([delivered(again)]).duplicates == 1

    moved = archive(settings, used) if verb == "detach" else attach(settings, used)
    assert (moved.place, moved.prepared) == ("archive" if verb == "detach" else "history", False)
    assert session.execute("SELECT * FROM usage_ever").fetchall() == rows
    assert log.write([delivered(again)]) == BatchReport(duplicates=1)
    other = admin.attach_month(settings, month) if verb == "detach" else archive(settings, used)
    assert (other.place, other.rows) == ("history" if verb == "detach" else "archive", 1)


def test_given_a_reader_that_stays_when_a_month_is_moved_then_it_gives_up_soon_and_consumers_go_on(
    settings: Settings, session: Session, log: UsageLog, engine: sqlalchemy.Engine, used: datetime
) -> None:
    """L10: a move waits two seconds for the history at most; it has changed nothing, and may be run again."""
    with engine.begin() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM usage_history")
        with pytest.raises(InUse, match="is in use: nothing was moved, run it again"):
            archive(settings, used)
        assert place_of(session, used) == [("public", "history")]
        assert log.write([delivered(usage_event())]).rows_inserted == 1
    assert archive(settings, used).place == "archive"
    with engine.begin() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM archive.usage_history")
        with pytest.raises(InUse, match="is in use"):
            attach(settings, used)
        assert place_of(session, used) == [("archive", "archive")]
    assert attach(settings, used).place == "history"


def test_given_a_consumer_and_a_reader_at_work_when_a_month_is_moved_to_and_fro_then_neither_sees_it(
    settings: Settings, session: Session, make_log: Callable[[], UsageLog], engine: sqlalchemy.Engine, used: datetime
) -> None:
    """L3: whatever moves between a batch's statements, its runs are in exactly one place; so they are for a sum."""
    runs = [usage_event(at_milliseconds=to_milliseconds(used)) for _ in range(20)]
    batch = [delivered(event) for event in runs]
    early = to_milliseconds(used - timedelta(days=400))
    make_log().write(batch)
    ended = threading.Event()
    reports: list[BatchReport] = []
    sums: list[int] = []

    def consume() -> None:
        log = make_log()
        while not ended.is_set():
            reports.append(log.write([*batch, delivered(usage_event(at_milliseconds=early))]))

    def read() -> None:
        found = sqlalchemy.text("SELECT count(*) FROM usage_ever WHERE run_id = ANY(:runs)")
        while not ended.is_set():
            with engine.connect() as connection:
                sums.append(connection.execute(found, {"runs": [event.run_id for event in runs]}).scalar_one())

    with ThreadPoolExecutor(2) as pool:
        working = [pool.submit(consume), pool.submit(read)]
        try:
            for move, place in [(archive, "archive"), (attach, "history")] * 4:
                count = len(reports)
                assert move(settings, used).place == place
                wait_until(lambda count=count: len(reports) > count + 1, what="batches in between")  # type: ignore[misc]
        finally:
            ended.set()
        for one in working:
            one.result()
    assert {(report.events, report.duplicates, report.dead_letters) for report in reports} == {(1, 20, 0)}
    assert set(sums) == {20}
    assert session.execute("SELECT count(*) FROM usage_ever").fetchone() == (21 + len(reports),)


def test_given_bounds_that_were_validated_when_a_month_is_moved_then_no_row_of_it_is_read(
    settings: Settings, session: Session, used: datetime
) -> None:
    """The move holds up consumers: PostgreSQL must not scan the month within it, whatever its size."""
    name = f"usage_history_{used:%Y_%m}"
    told: list[str] = []
    session.add_notice_handler(lambda notice: told.append(notice.message_primary or ""))
    session.execute("SET client_min_messages = debug1")
    with pytest.raises(psycopg.errors.ObjectNotInPrerequisiteState, match="is not ready to be moved"):
        session.execute("SELECT billing_detach_usage_month(%s)", [name])
    session.execute("SELECT billing_bound_usage_month(%s)", [name])
    session.execute(f"ALTER TABLE {name} VALIDATE CONSTRAINT billing_month")
    for verb in ("detach", "attach"):
        told.clear()
        session.execute(f"SELECT billing_{verb}_usage_month(%s)".encode(), [name])
        assert any("implied by existing constraints" in line for line in told), told
        assert not any("verifying table" in line for line in told), told


def test_given_a_month_that_was_moved_by_hand_when_attached_or_detached_then_the_move_is_completed(
    settings: Settings, session: Session, log: UsageLog, used: datetime
) -> None:
    """Adrift, a month loses nothing: its events wait, and the list says so."""
    name, event = f"usage_history_{used:%Y_%m}", usage_event(at_milliseconds=to_milliseconds(used), task_id="run")
    for schema, move, place in (("public", archive, "archive"), ("archive", attach, "history")):
        attach(settings, used)
        session.execute(f"ALTER TABLE usage_history DETACH PARTITION {name}")
        if schema == "archive":
            session.execute(f"ALTER TABLE {name} SET SCHEMA archive")
        assert place_of(session, used) == [(schema, "adrift")]
        assert admin.partitions(settings).missing == [f"{used:%Y-%m}"]
        with pytest.raises(LogUnready):
            log.write([delivered(event)])
        assert admin.make_months(settings) == [], "an empty month in its place would hide that it was there"
        assert (move(settings, used).place, place_of(session, used)[0][1]) == (place, place)
        assert log.write([delivered(event)]).duplicates == 1


def test_given_a_concurrent_detachment_that_was_cut_off_when_detached_then_it_is_completed(
    settings: Settings, session: Session, log: UsageLog, engine: sqlalchemy.Engine, used: datetime
) -> None:
    name, event = f"usage_history_{used:%Y_%m}", usage_event(at_milliseconds=to_milliseconds(used), task_id="run")
    with engine.begin() as reader:
        reader.exec_driver_sql("SELECT count(*) FROM usage_history")
        with postgres.connect(settings, autocommit=True) as hand:
            hand.execute("SET statement_timeout = '1s'")
            with pytest.raises(psycopg.errors.QueryCanceled):
                hand.execute(f"ALTER TABLE usage_history DETACH PARTITION {name} CONCURRENTLY")
    assert place_of(session, used) == [("public", "leaving")]
    with pytest.raises(LogUnready):
        log.write([delivered(event)])
    assert (archive(settings, used).place, log.write([delivered(event)]).duplicates) == ("archive", 1)


def test_given_a_month_that_is_needed_still_when_detached_then_it_is_refused_and_says_why(
    settings: Settings, session: Session, used: datetime
) -> None:
    """L8: usage that is on its way to Stripe is finished first; a month that may get events is too young."""
    month = f"{used:%Y-%m}"
    start = used.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    end = (start + timedelta(days=32)).replace(day=1)

    def refused(rule: str, at: datetime = end + timedelta(days=90), month: str = month) -> None:
        with pytest.raises(InvalidValue, match=rule):
            admin.detach_month(settings, month, now=at)
        assert place_of(session, used) == [("public", "history")]

    refused(r"may be detached from \d{4}-\d\d-\d\d on: 90 days after its end", used)
    refused("may be detached from", end + timedelta(days=90, seconds=-1))
    for wrong in ("early", "legacy", "2026-13", "2026", "", "20261"):
        refused("must be a month, as 2026-03", month=wrong)
    refused("is in neither place", month="2020-01")

    session.execute("INSERT INTO stripe_customer (client_id, customer_id) VALUES ('acme', 'cus_acme')")
    refused("is used by client acme for credits that no increment carries yet")
    increment = plan(session, "acme")
    for state in ("pending", "sending", "sent", "ambiguous"):
        session.execute("UPDATE stripe_increment SET state = %s", [state])
        refused(f"is carried by increment {increment}, which is {state}")
    session.execute(
        "INSERT INTO parked_task (run_id, client_id, task, task_id, sku, credits, available, body, content_type,"
        " content_encoding, headers, properties, exchange, routing_key, times, parked_at, expires_at)"
        " SELECT run_id, 'acme', 'task', 'parked', 'page', 1, 0, '', '', '', '', '', '', '', 1, now(), now()"
        " FROM usage_history"
    )
    for state in ("rejected", "quarantined", "written_off", "confirmed"):
        session.execute("UPDATE stripe_increment SET state = %s", [state])
        refused(r"has the run of parked task \d+, which waits still")
    session.execute("UPDATE parked_task SET state = 'cancelled', ended_at = now()")
    for _ in range(2):
        assert admin.detach_month(settings, month, now=end + timedelta(days=90)).place == "archive"


def test_given_less_than_one_unit_of_its_meter_when_detached_then_the_month_does_not_wait_for_it(
    settings: Settings, session: Session, used: datetime
) -> None:
    """What no increment can carry may never be one unit; one whole unit is on its way."""
    end = (used.replace(day=1, hour=0, minute=0, second=0, microsecond=0) + timedelta(days=32)).replace(day=1)
    session.execute("INSERT INTO stripe_customer (client_id, customer_id) VALUES ('acme', 'cus_acme')")
    ((waiting,),) = session.execute("SELECT sum(credits) FROM usage_rollup").fetchall()
    session.execute("INSERT INTO meter (event_name, credits_per_unit) VALUES ('whole', %s)", [waiting])
    session.execute("INSERT INTO meter (event_name, credits_per_unit) VALUES ('less', %s)", [waiting + 1])
    for meter in ("whole", "less"):
        on = dataclasses.replace(settings, stripe_meter=meter)
        if meter == "whole":
            with pytest.raises(InvalidValue, match="for credits that no increment carries yet"):
                admin.detach_month(on, f"{used:%Y-%m}", now=end + timedelta(days=90))
        else:
            assert admin.detach_month(on, f"{used:%Y-%m}", now=end + timedelta(days=90)).place == "archive"
        admin.close(on)
