"""Who was seen: a real worker notes itself and is gone, silent or back; beat by its messages; PostgreSQL away (L9)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from billing.observability.doctor.liveness import examine_liveness
from billing.observability.liveness import seen
from billing.observability.liveness.judging import BEAT_LATE_SECONDS, BEAT_SILENT_SECONDS
from billing.observability.liveness.seen import LastSeen
from tests.fleet.fixtures import make_fleet
from tests.fleet.harness import Fleet
from tests.proxy import Proxy, in_front_of
from tests.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def rows(fleet: Fleet, process: str = seen.CONSUMER) -> list[LastSeen]:
    """Return who was seen."""
    with fleet.runtime.engine.connect() as connection:
        return [row for row in seen.read(connection) if row.process == process]


def sql(fleet: Fleet, statement: str) -> None:
    with psycopg.connect(fleet.settings.database_url, autocommit=True) as connection:
        connection.execute(statement.encode())


def said(fleet: Fleet) -> dict[str, str]:
    """Return what doctor says of who was seen: words without ages, and the verdict."""
    found = list(examine_liveness(fleet.runtime))
    assert all(finding.advice for finding in found if finding.verdict.value != "ok")
    return {finding.seen.partition(" was seen ")[0].partition(":")[0]: finding.verdict.value for finding in found}


def test_a_consumer_is_seen_and_gone_when_it_is_stopped(fleet: Fleet) -> None:
    """Given a worker with --fulfillment, then its row says what it serves; a clean stop removes it: none is seen."""
    fleet.client("acme", 100)
    assert said(fleet)["no consumer is seen"] == "warn"
    first = fleet.consumer("one")
    wait_until(lambda: [row.name for row in rows(fleet)] == ["one@test"], "the consumer is seen")
    wait_until(lambda: rows(fleet)[0].details["queues"] == fleet.settings.usage_queues, "it is noted as subscribed")
    (row,) = rows(fleet)
    assert row.details["served"] == "0,1,2,3"
    assert {"in_hand", "oldest_seconds", "database_seconds", "rows"} <= row.details.keys()
    assert said(fleet)["consumer one@test"] == "ok"

    fleet.worker()
    fleet.send("ok", "acme")
    fleet.wait_for_rows(1)
    first.stop(60)
    assert rows(fleet) == []
    assert said(fleet)["no consumer is seen"] == "fail"

    fleet.consumer("two")
    wait_until(lambda: said(fleet).get("consumer two@test") == "ok", "the next one is seen")


def test_a_consumer_that_was_killed_is_silent_until_another_takes_over(fleet: Fleet) -> None:
    """Given a consumer that died, then it is named; another one with its queues makes that news for an hour alone."""
    child = fleet.consumer("one")
    wait_until(lambda: rows(fleet), "the consumer is seen")
    child.kill()
    assert [row.name for row in rows(fleet)] == ["one@test"]
    sql(fleet, "UPDATE last_seen SET seen_at = seen_at - interval '2 min'")
    assert {"consumer one@test is silent": "fail", "no consumer is seen": "fail"}.items() <= said(fleet).items()

    fleet.consumer("two")
    wait_until(lambda: said(fleet).get("consumer two@test") == "ok", "another one is seen")
    assert said(fleet)["consumer one@test is silent"] == "warn"
    sql(fleet, "UPDATE last_seen SET seen_at = seen_at - interval '2 h' WHERE name = 'one@test'")
    assert "consumer one@test is silent" not in said(fleet)
    sql(fleet, "UPDATE last_seen SET seen_at = seen_at - interval '7 days' WHERE name = 'one@test'")
    wait_until(lambda: [row.name for row in rows(fleet)] == ["two@test"], "what is a week old is removed")


@pytest.fixture
def behind_door(request: pytest.FixtureRequest) -> Iterator[tuple[Fleet, Proxy]]:
    """Make a fleet that reaches PostgreSQL through a door."""
    with _behind_door(request) as made:
        yield made


@contextmanager
def _behind_door(request: pytest.FixtureRequest) -> Iterator[tuple[Fleet, Proxy]]:
    given = {
        f"BILLING_{name}_URL": request.getfixturevalue(f"{name.lower()}_url")
        for name in ("REDIS", "RESULT", "BROKER", "DATABASE")
    }
    with in_front_of(given["BILLING_DATABASE_URL"]) as (door, url):
        servers = {**given, "BILLING_DATABASE_URL": url}
        with make_fleet(servers, request.getfixturevalue("tmp_path")) as fleet:
            yield fleet, door


def test_postgresql_away_disturbs_no_worker(behind_door: tuple[Fleet, Proxy]) -> None:
    """Given PostgreSQL away for longer than a note, then the worker lives on, says so, and is seen again."""
    fleet, door = behind_door
    child = fleet.consumer("one")
    wait_until(lambda: rows(fleet), "the consumer is seen")
    before = rows(fleet)[0]
    log = fleet.directory / "one.log"
    door.shut()
    wait_until(lambda: "billing: presence waits: " in log.read_text(errors="replace"), "it could not be noted")
    assert child.running
    door.reopen()
    fleet.runtime.close()
    wait_until(lambda: rows(fleet) and rows(fleet)[0].seen_at > before.seen_at, "it is seen again")
    assert "Traceback" not in "".join(line for line in log.read_text().splitlines() if "presence" in line)


def test_beat_is_seen_by_its_own_messages(fleet: Fleet) -> None:
    """Given a real beat, then it is seen; frozen it grows old though every consumer lives, and it comes back."""
    fleet.consumer("one")
    beat = fleet.run_module(
        "beat", "celery", "-A", "tests.fleet.beat", "beat", "-l", "INFO", "-s", str(fleet.directory / "beat")
    )
    wait_until(lambda: rows(fleet, seen.BEAT), "beat is seen", timeout_seconds=300)
    assert said(fleet)["beat"] == "ok"

    beat.signal(signal.SIGSTOP)
    try:
        for age, verdict in ((BEAT_LATE_SECONDS, "warn"), (BEAT_SILENT_SECONDS, "fail")):
            sql(fleet, f"UPDATE last_seen SET seen_at = now() - interval '{age + 1} s' WHERE process = 'beat'")
            assert said(fleet)["beat"] == verdict
    finally:
        beat.signal(signal.SIGCONT)
    wait_until(lambda: said(fleet)["beat"] == "ok", "beat is seen again", timeout_seconds=300)
