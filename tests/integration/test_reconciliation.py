"""Reconciliation of clean books: every law holds, and the report says what was compared."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pytest
from sqlalchemy import Connection, text

from billing.core.errors import UnknownClient, Unreachable
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.auditing import Auditing
from billing.credits.values import OpenOutcome
from billing.reconciliation import reading, recording, tally
from billing.reconciliation.facts import LogFacts
from billing.reconciliation.report import Law, Verdict
from billing.recovery.writing import write_shard
from tests.integration.reconciling import SHARDS, Books, books_on, compared

pytestmark = pytest.mark.integration


@pytest.fixture
def books(database: Settings, redis_url: str) -> Iterator[Books]:
    """Open books."""
    with books_on(database, redis_url) as opened:
        yield opened


def test_given_no_clients_when_reconciled_then_every_law_holds(books: Books) -> None:
    report = books.reconcile()

    assert report.ok
    assert report.clients == 0
    assert {law.verdict for law in report.laws} == {Verdict.HOLDS}
    assert {law.law for law in report.laws} == {law.value for law in Law} - {"L8 Stripe"}


def test_given_clean_books_when_reconciled_then_the_report_says_what_was_compared(books: Books) -> None:
    """L2, L3, L8: several grants, a run of two lines, a hold, debt, a late run, and a client that used nothing."""
    books.client("acme", 100, 50)
    books.use("acme", 60, 10)
    books.use("acme", 5, held=8)
    books.use("acme", 7, held=0)
    books.hold("acme", 20)
    books.client("debtor", 10)
    books.use("debtor", 25, held=10)
    books.client("idle")

    report = books.reconcile()

    assert report.ok, report.discrepancies
    assert report.clients == 3
    assert compared(report, "L2 bucket") == {
        "clients": 3, "grants": 3, "granted": 160, "owed": 15, "available": 48, "held": 20, "spent": 107,
    }  # fmt: skip
    assert compared(report, "L2 holds") == {"clients": 3, "holds": 1, "held": 20}
    assert compared(report, "L2 grants") == {"clients": 3, "grants": 3, "credits": 160, "not applied yet": 0}
    assert compared(report, "L2 spent") == {"clients": 3, "grants": 3, "credits": 107}
    assert compared(report, "L3 one charge") == {"runs": 4, "lines": 5, "in outbox": 0, "dead letters": 0}
    assert compared(report, "L7 sums of the log")["credits"] == 107
    assert compared(report, "L8 planned")["credits"] == compared(report, "L8 planned")["not planned"] == 107
    assert {name: balance.spent for name, balance in report.balances.items()} == {"acme": 82, "debtor": 25, "idle": 0}


def test_given_a_client_that_is_named_when_reconciled_then_only_that_one_is(books: Books) -> None:
    books.client("acme", 10)
    books.client("other", 10)

    assert books.reconcile("acme").clients == 1


def test_given_an_unknown_client_beside_a_known_one_when_reconciled_then_none_is(books: Books) -> None:
    """Bad usage begins nothing: no client is compared, and no run stays that never ended."""
    books.client("acme", 10)

    with pytest.raises(UnknownClient, match="nobody"):
        books.reconcile("acme", "nobody")

    assert books.sql("SELECT run_id FROM reconciliation_run") == []


def test_given_more_discrepancies_than_are_kept_when_looked_up_then_all_are_counted(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L9: the table has the first ones; whoever asks how many there were is told all."""
    monkeypatch.setattr(tally, "DISCREPANCIES_MAX", 1)
    for client_id in ("acme", "other"):
        books.client(client_id, 10)
        books.spoil_grants(client_id, f"g:{books.grant_ids(client_id)[0]}", 1)
    found = sum(law.discrepancies for law in books.reconcile(stripe=True).laws)

    with books.runtime.engine.connect() as connection:
        last = recording.last_run(connection)

    assert last is not None
    assert last.discrepancies == found > 2
    assert books.sql("SELECT count(*) FROM discrepancy") == [(1,)]


def test_given_clients_in_slices_when_reconciled_then_each_is_compared_once(database: Settings, redis_url: str) -> None:
    """L9: two clients at a time, and the sums are those of all."""
    with books_on(database, redis_url, reconcile_slice=2) as books:
        for number in range(5):
            books.client(f"client-{number}", 10 + number)
        report = books.reconcile()

    assert report.ok
    assert report.clients == compared(report, "L2 spent")["clients"] == 5
    assert compared(report, "L2 bucket")["granted"] == 60


def test_given_a_rebuild_when_reconciled_then_the_laws_still_hold(books: Books) -> None:
    """L6: a bucket that was rebuilt from the log, with debt and holds, agrees with it."""
    books.client("acme", 10)
    books.use("acme", 25, held=10)
    books.grant("acme", 100)
    books.hold("acme", 30)
    books.use("acme", 4)
    shard = shard_of("acme", SHARDS)
    before = books.reconcile()
    assert before.ok, before.discrepancies
    assert before.balances["acme"].owed == 0

    books.runtime.buckets.close(shard)
    write_shard(books.runtime, shard)
    report = books.reconcile()

    assert report.ok, report.discrepancies
    assert report.balances["acme"].epoch == 2
    assert report.balances["acme"].spent == 29
    books.use("acme", 1)
    assert books.reconcile().ok


def test_given_an_event_on_its_way_when_reconciled_then_it_is_waited_for(books: Books) -> None:
    """L2 on a live fleet: what was settled and is not logged yet is no discrepancy once it arrives."""
    books.client("acme", 100)
    books.use("acme", 10, write=False)
    pauses: list[float] = []

    def wait(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:
            books.use("acme", 5, write=False)
            books.deliver()
            books.use("acme", 7, write=False)

    report = books.reconcile(wait=wait)

    assert report.ok, report.discrepancies
    assert len(pauses) == 1
    assert compared(report, "L2 spent") == {"clients": 1, "grants": 1, "credits": 10}


def test_given_an_event_that_never_arrives_when_reconciled_then_it_is_missed_to_the_unit(books: Books) -> None:
    """L3: a run that Redis has charged and the log has not is named with what waits in the outbox."""
    books.client("acme", 100)
    books.use("acme", 10, write=False)

    report = books.reconcile()

    (found,) = report.discrepancies
    assert (found.law, found.client_id, found.grant_id) == ("L2 spent", "acme", books.grant_ids("acme")[0])
    assert found.found.startswith("spent: Redis says 10, the log's grant_spent says 0")
    assert "1 events wait in the outbox" in found.found
    assert compared(report, "L3 one charge")["in outbox"] == 1


def test_given_a_shard_that_recovers_when_reconciled_then_it_is_not_compared(books: Books) -> None:
    """L6: what is being rebuilt is neither right nor wrong; the other laws and shards are compared."""
    names = [f"client-{number}" for number in range(40)]
    for name in names:
        books.client(name, 10)
    lost = shard_of(names[0], SHARDS)
    books.runtime.buckets.close(lost)
    count = sum(shard_of(name, SHARDS) == lost for name in names)

    report = books.reconcile()

    assert report.holds
    assert not report.complete
    verdicts = {law.law: law for law in report.laws}
    assert verdicts["L2 spent"].not_compared == {"its shard is recovering": count}
    assert verdicts["L2 spent"].compared["clients"] == 40 - count
    assert verdicts["L2 grants"].verdict is Verdict.HOLDS


def test_given_a_rebuild_while_it_waits_when_reconciled_then_the_comparison_begins_again(books: Books) -> None:
    """L6: a bucket of an older epoch is compared with nothing."""
    books.client("acme", 100)
    books.use("acme", 10, write=False)
    shard = shard_of("acme", SHARDS)

    def wait(_: float) -> None:
        if books.runtime.buckets.epochs(["acme"]) == {"acme": 1}:
            books.deliver()
            books.runtime.buckets.close(shard)
            write_shard(books.runtime, shard)

    report = books.reconcile(wait=wait)

    assert report.ok, report.discrepancies
    assert compared(report, "L2 spent")["credits"] == 10


def test_given_a_shard_that_waits_for_a_rebuild_when_it_differs_then_it_is_not_compared(books: Books) -> None:
    """The log asks for a rebuild in the transaction in which it learns that a bucket may differ."""
    books.client("acme", 100)
    books.use("acme", 10)
    books.spoil_bucket("acme", ":90:0:10", ":91:0:9")
    books.sql("INSERT INTO shard_rebuild (shard, reason) VALUES (%s, 'a test wants it')", shard_of("acme", SHARDS))

    report = books.reconcile()

    assert report.holds
    (spent,) = [law for law in report.laws if law.law == "L2 spent"]
    assert spent.not_compared == {"its shard waits for a rebuild (a test wants it)": 1}


def test_given_a_redis_that_is_away_when_reconciled_then_it_says_so(database: Settings) -> None:
    with books_on(database, "redis://127.0.0.1:1/0") as books:
        books.sql("INSERT INTO client (client_id, shard) VALUES ('acme', %s)", shard_of("acme", SHARDS))
        with pytest.raises(Unreachable, match="billing_redis_url"):
            books.reconcile()
        assert books.sql("SELECT finished_at, held FROM reconciliation_run") == [(None, None)]


def test_given_a_client_without_a_bucket_when_reconciled_then_it_is_named(books: Books) -> None:
    books.client("acme")
    books.redis.delete(books._keys("acme").bucket + "acme")

    report = books.reconcile()

    assert [(found.law, found.client_id) for found in report.discrepancies] == [("L2 spent", "acme")]
    assert books.runtime.buckets.open_client("acme", 1) is OpenOutcome.OPENED
    assert books.reconcile().ok


def test_given_more_holds_than_one_step_looks_at_when_reconciled_then_that_is_said(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L9: the server is not stopped for a long step; what was not looked at is not called fine."""
    monkeypatch.setattr(Auditing.audit, "__kwdefaults__", {"holds_max": 1})
    books.client("acme", 100)
    books.hold("acme", 1)
    assert books.reconcile().ok

    books.hold("acme", 2)
    report = books.reconcile()

    assert report.holds
    assert not report.complete
    verdicts = {law.law: law.verdict for law in report.laws}
    assert [law for law, verdict in verdicts.items() if verdict is Verdict.NOT_COMPARED] == ["L2 holds", "L5 no orphan"]


def test_given_a_slice_that_takes_too_long_when_reconciled_then_it_is_halved(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L9, L10: one client's long history leaves the others compared, and its own bucket too."""
    names = [f"client-{number}" for number in range(4)]
    for name in names:
        books.client(name, 10)
        books.use(name, 3)
    original = reading.log_facts

    def slow(connection: Connection, ids: Sequence[str]) -> dict[str, LogFacts]:
        if "client-2" in ids:
            connection.execute(text("SET LOCAL statement_timeout = '20ms'"))
            connection.execute(text("SELECT pg_sleep(30)"))
        return original(connection, ids)

    monkeypatch.setattr(reading, "log_facts", slow)
    report = books.reconcile()

    assert report.holds
    assert report.clients == compared(report, "L2 spent")["clients"] == 4
    assert compared(report, "L7 sums of the log")["credits"] == 9
    left_out = {law.law: dict(law.not_compared) for law in report.laws if law.not_compared}
    assert left_out == {
        law: {"its history takes too long to add up": 1}
        for law in ("L3 one charge", "L7 sums of the log", "L8 planned")
    }


def test_given_clients_that_wait_past_the_bound_when_reconciled_then_they_are_not_compared(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L9: when nothing reaches the log, the report stays small and says that it is not whole."""
    monkeypatch.setattr("billing.reconciliation.reconcile.PURSUED_MAX", 1)
    for name in ("acme", "beta", "core"):
        books.client(name, 10)
        books.use(name, 3, write=False)

    report = books.reconcile()

    (spent,) = [law for law in report.laws if law.law == "L2 spent"]
    assert (spent.not_compared, spent.discrepancies) == ({"too many clients differ at once": 2}, 1)
