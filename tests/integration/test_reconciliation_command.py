"""`billing reconcile`, its task, and the doctor's row: what a person, a program and a log are told."""

from __future__ import annotations

import dataclasses
import json
import logging
from datetime import UTC, datetime

import celery
import psycopg
import pytest
import redis

import billing
from billing import admin
from billing.core.settings import load
from billing.core.shards import shard_of
from billing.credits.keys import shard_keys
from billing.observability.doctor.finding import Verdict
from billing.observability.doctor.reconciliation import examine_reconciliation
from billing.reconciliation.continuous.reconciler import Reconciler
from billing.reconciliation.continuous.status import read_status
from billing.reconciliation.recording import last_run
from billing.reconciliation.scheduled import reconcile_next
from billing.task.attachment import attachment_of
from billing.task.runtime import Runtime
from tests.terminal import NOWHERE, Terminal

pytestmark = pytest.mark.integration


def _spoil(shop: Terminal) -> None:
    """Have the ledger say one credit less than was granted."""
    with psycopg.connect(shop.environment["BILLING_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("ALTER TABLE ledger_entry DISABLE TRIGGER USER")
        connection.execute("UPDATE ledger_entry SET credits = 99")


def test_given_clean_books_when_asked_then_each_law_is_printed_with_what_was_compared(shop: Terminal) -> None:
    answer = shop.type("reconcile")

    assert answer.code == 0, answer
    assert "L2 bucket" in answer.out
    assert "granted 100" in answer.out
    assert answer.out.splitlines()[-1] == "1 client: all laws hold"


def test_given_a_credit_too_few_when_asked_then_it_exits_with_1_and_names_client_and_grant(shop: Terminal) -> None:
    _spoil(shop)

    words, printed = shop.type("reconcile", "acme"), shop.run("reconcile", "--json")

    assert words.code == printed.code == 1
    assert "credit_grant says 100, 1 ledger entries say 99" in words.out
    assert words.out.splitlines()[-1] == "1 client: does not hold: L2 grants"
    report = json.loads(printed.out)
    assert [(found["law"], found["client_id"], found["grant_id"]) for found in report["discrepancies"]] == [
        ("L2 grants", "acme", 1)
    ]
    assert {law["law"]: law["verdict"] for law in report["laws"]}["L2 grants"] == "broken"
    assert report["balances"]["acme"]["available"] == 100
    with psycopg.connect(shop.environment["BILLING_DATABASE_URL"]) as connection:
        kept = connection.execute("SELECT run_id, held, whole, clients FROM reconciliation_run ORDER BY 1").fetchall()
        rows = connection.execute("SELECT run_id, law, client_id, grant_id FROM discrepancy ORDER BY 1").fetchall()
    assert kept == [(1, False, False, 1), (2, False, True, 1)]
    assert rows == [(1, "L2 grants", "acme", 1), (2, "L2 grants", "acme", 1)]


def test_given_bad_usage_when_asked_then_one_line_and_the_exit_code(shop: Terminal) -> None:
    shop.type("reconcile", "nobody").refused(2, "nobody")
    shop.type("reconcile", "two\nlines").refused(2, "client_id")


@pytest.mark.parametrize("server", ["BILLING_REDIS_URL", "BILLING_DATABASE_URL"])
def test_given_a_server_that_is_away_when_asked_then_one_line_and_exit_code_1(shop: Terminal, server: str) -> None:
    shop.run("reconcile", **{server: NOWHERE[server]}).refused(1, server.lower())


def test_given_a_stripe_that_is_away_when_asked_then_the_rest_is_compared_and_the_exit_code_is_1(
    shop: Terminal,
) -> None:
    with psycopg.connect(shop.environment["BILLING_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("INSERT INTO stripe_customer (client_id, customer_id) VALUES ('acme', 'cus_1')")
    away = {"BILLING_STRIPE_SANDBOX_URL": "http://127.0.0.1:1"}

    answer = shop.type("reconcile", **away)

    assert answer.code == 1
    assert "not compared" in answer.out
    assert answer.out.splitlines()[-1] == "1 client: nothing differs; not all was compared: L8 Stripe"
    assert shop.type("reconcile", "--no-stripe", **away).code == 0


def test_given_books_when_beats_task_runs_twice_then_each_discrepancy_is_one_line_of_the_log(
    shop: Terminal, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in shop.environment.items():
        monkeypatch.setenv(name, value)
    app = billing.setup(celery.Celery("shop", broker="memory://", set_as_current=False))
    _spoil(shop)

    with caplog.at_level(logging.ERROR, "billing"):
        results = [app.tasks["billing.reconcile.run"]() for _ in range(2)]

    assert results == [{"clients": 1, "discrepancies": 1}] * 2
    lines = [record.getMessage() for record in caplog.records]
    assert lines == ["billing: L2 grants: client acme, grant 1: credit_grant says 100, 1 ledger entries say 99"] * 2
    attachment_of(app).runtime.close()
    app.close()


def test_given_no_time_when_it_runs_again_then_it_goes_on_where_it_stopped(shop: Terminal) -> None:
    """L9: bounded in time, and no client is left out for ever."""
    for name in ("beta", "core"):
        admin.add_client(load({}, shop.environment), name)
    settings = dataclasses.replace(load({}, shop.environment), reconcile_slice=1)
    clock = _Ticking()
    runtime = Runtime(lambda: settings, clock)
    try:
        stopped = [reconcile_next(runtime, seconds=1.0).resume_after for _ in range(5)]
        with runtime.engine.connect() as connection:
            kept = last_run(connection)
    finally:
        runtime.close()
        admin.close(load({}, shop.environment))

    assert stopped == ["acme", "beta", None, "acme", "beta"]
    assert kept is not None
    assert kept.resume_after == "beta"


class _Ticking:
    """A clock on which every look at the monotonic time is most of a second later."""

    def __init__(self) -> None:
        self._seconds = 0.0

    def now(self) -> datetime:
        """Return the present instant."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return 0.6 seconds more than the last time."""
        self._seconds += 0.6
        return self._seconds


def test_given_reconciliations_when_the_doctor_looks_then_it_says_when_and_what(shop: Terminal) -> None:
    settings = load({}, shop.environment)
    runtime = Runtime(lambda: settings)
    try:
        (never,) = examine_reconciliation(runtime)
        admin.reconcile(settings)
        (fine,) = examine_reconciliation(runtime)
        _spoil(shop)
        admin.reconcile(settings, ["acme"])
        (named,) = examine_reconciliation(runtime)
        admin.reconcile(settings)
        (broken,) = examine_reconciliation(runtime)
        with runtime.engine.begin() as connection:
            connection.exec_driver_sql("DELETE FROM discrepancy")
            connection.exec_driver_sql("DELETE FROM reconciliation_run WHERE NOT held")
            connection.exec_driver_sql("UPDATE reconciliation_run SET finished_at = now() - interval '4 hours'")
        (old,) = examine_reconciliation(runtime)
    finally:
        runtime.close()
        admin.close(settings)

    assert (never.verdict, never.seen) == (Verdict.WARN, "has never run")
    assert (fine.verdict, fine.seen) == (Verdict.OK, "0 min ago over 1 clients: all laws hold")
    assert named.seen == fine.seen
    assert (broken.verdict, broken.seen) == (Verdict.FAIL, "0 min ago over 1 clients: 1 discrepancies")
    assert (old.verdict, old.seen) == (Verdict.WARN, "4 h 0 min ago over 1 clients: all laws hold")


def _make_a_credit(shop: Terminal, by: int = 1) -> None:
    """Have the bucket of acme say that more is available than was granted."""
    key = shard_keys(shard_of("acme", load({}, shop.environment).shards)).bucket + "acme"
    with redis.Redis.from_url(shop.environment["BILLING_REDIS_URL"]) as client:
        bucket = client.get(key)
        assert isinstance(bucket, bytes)
        client.set(key, bucket.replace(b":100:0:0", b":%d:0:0" % (100 + by)))


def _refuse_a_posting(shop: Terminal) -> None:
    """Have a posting to acme that its bucket did not take."""
    with psycopg.connect(shop.environment["BILLING_DATABASE_URL"], autocommit=True) as connection:
        connection.execute(
            "INSERT INTO posting (client_id, epoch, grant_id, credits, version, refused)"
            " SELECT client_id, epoch, 0, 5, 1, 'TOO_LARGE' FROM client"
        )


def _take_it_back(shop: Terminal) -> None:
    with psycopg.connect(shop.environment["BILLING_DATABASE_URL"], autocommit=True) as connection:
        connection.execute("DELETE FROM posting")


def _repairs(shop: Terminal) -> list[tuple[object, ...]]:
    with psycopg.connect(shop.environment["BILLING_DATABASE_URL"]) as connection:
        query = "SELECT run_id, client_id, grant_id, action, credits, restored FROM repair ORDER BY 1"
        return connection.execute(query).fetchall()


def test_given_a_credit_too_many_when_repair_is_asked_for_then_it_shows_asks_and_does_it_once(shop: Terminal) -> None:
    _make_a_credit(shop)

    asked = shop.type("reconcile", "--repair")
    untouched = shop.type("balance", "acme", "--json").json()
    done = shop.type("reconcile", "--repair", "--yes")
    recorded = _repairs(shop)
    again = shop.type("reconcile", "--repair", "--yes")

    assert asked.code == 1
    assert "post restored -1" in asked.out
    assert "Repair 1 client? [y/N]" in asked.out
    assert untouched["available"] == 101
    assert (done.code, done.out.splitlines()[-1]) == (0, "1 client repaired by postings")
    assert [row[1:] for row in recorded] == [("acme", 1, "posted", 0, -1)]
    assert (again.code, again.out) == (0, "nothing to repair\n")
    assert _repairs(shop) == recorded
    assert shop.type("reconcile").code == 0
    assert shop.type("balance", "acme", "--json").json()["available"] == 100


def test_given_a_ledger_that_is_wrong_when_repair_is_asked_for_then_a_person_is_told(shop: Terminal) -> None:
    _spoil(shop)

    printed = shop.type("reconcile", "--repair", "--yes", "--json")

    assert printed.code == 1
    done = json.loads(printed.out)
    assert (done["posted"], done["rebuilds"], _repairs(shop)) == ([], [], [])
    ((who, why),) = [(one["client_id"], one["why"]) for one in done["left"]]
    assert who == "acme"
    assert "billing adjust credits" in why


def test_given_bad_usage_of_repair_or_status_when_asked_then_one_line_and_the_exit_code(shop: Terminal) -> None:
    shop.type("reconcile", "--repair", "--json").refused(2, "--yes")
    shop.type("reconcile", "--yes").refused(2, "--repair")
    shop.type("reconcile", "--status", "acme").refused(2, "--status")
    shop.type("reconcile", "--repair", "nobody").refused(2, "nobody")


def test_given_the_continuous_reconciler_when_its_status_is_asked_for_then_it_says_how_it_stands(
    shop: Terminal,
) -> None:
    settings = dataclasses.replace(load({}, shop.environment), reconcile_pass_seconds=0.001, reconcile_load_percent=100)
    runtime = Runtime(lambda: settings)
    reconciler = Reconciler(runtime)

    def passed() -> None:
        before = read_status(runtime).passes
        while read_status(runtime).passes < before + 2:
            reconciler.step()

    never = shop.type("reconcile", "--status")
    try:
        passed()
        fine = shop.type("reconcile", "--status")
        _refuse_a_posting(shop)
        refused = shop.type("reconcile", "--status")
        _take_it_back(shop)
        _make_a_credit(shop)
        passed()
        broken, printed = shop.type("reconcile", "--status"), shop.type("reconcile", "--status", "--json")
    finally:
        reconciler.close()
        runtime.close()
    off = shop.type("reconcile", "--status", BILLING_RECONCILE_PASS_SECONDS="0")

    assert never.code == off.code == broken.code == printed.code == 1
    assert never.out.startswith("no pass has ended yet")
    assert (fine.code, fine.out.strip().endswith("nothing differs")) == (0, True)
    assert "over 1 clients" in fine.out
    assert (refused.code, refused.out.splitlines()[-1].endswith("nothing differs; 1 posting refused")) == (1, True)
    assert broken.out.splitlines()[-1].endswith("2 discrepancies stand")
    assert "granted 100 is not available 101" in broken.out
    assert [one["thing"]["client_id"] for one in json.loads(printed.out)["stands"]] == ["acme", "acme"]
    assert off.out.splitlines()[-1] == "off: billing_reconcile_pass_seconds is 0"
