"""`billing receipt` as a user types it: four forms of the same lines, whole files, refusals of one line."""

from __future__ import annotations

import csv
import io
import json
import re
import shlex
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from billing import admin, receipts
from billing.cli import receipt as command
from billing.connections import postgres
from billing.core.clock import to_milliseconds
from billing.core.settings import Settings
from billing.fulfillment.postgres_log import PostgresUsageLog
from tests.receipts import plan
from tests.terminal import Terminal
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration

OCTOBER = ("--from", "2026-10-01")
HOSTILE = "<script>=1+1</script>\x1b[31m\n[bold]"


@pytest.fixture
def used(shop: Terminal) -> Terminal:
    """Open a terminal on a client that used 3 pages a day for four days of October, and something in this month."""
    settings = Settings(database_url=shop.environment["BILLING_DATABASE_URL"])
    log = PostgresUsageLog(lambda: postgres.connect(settings), shards=settings.shards)
    days = [datetime(2026, 10, day, 9, 30, tzinfo=UTC) for day in (1, 2, 3, 31)]
    instants = [*days, datetime.now(UTC)]
    events = [
        usage_event(
            "acme",
            HOSTILE if number == 3 else f"task-{number}",
            lines=[paid_line("page", 3, [(1, 10), (0, 5)])],
            occurred_at=to_milliseconds(at),
            at_milliseconds=to_milliseconds(at),
        )
        for number, at in enumerate(instants)
    ]
    with psycopg.connect(settings.database_url, autocommit=True) as session:
        log.write([delivered(event) for event in events[:2]])
        plan(session, "acme", state="confirmed")
        log.write([delivered(event) for event in events[2:]])
    log.close()
    return shop


def test_a_client_s_name_is_text_wherever_it_stands(shop: Terminal) -> None:
    """Given a client whose name looks like markup of the terminal, then it is shown as it is."""
    name = "acme[/red]<b>{{7*7}}"
    assert shop.type("client", "add", name).code == 0
    for words in (
        ("receipt", name),
        ("receipt", name, "--format", "json"),
        ("balance", name),
        ("client", "show", name),
    ):
        shown = shop.type(*words)
        assert (shown.code, name in shown.out) == (0, True), words
    page = shop.type("receipt", name, "--format", "html")
    assert "acme[/red]&lt;b&gt;{{7*7}}" in page.out
    assert name not in page.out


def test_every_form_has_the_same_lines(used: Terminal) -> None:
    """Given a month with four lines, then JSON, CSV, HTML and the table show these, and the same sums."""
    document = used.type("receipt", "acme", *OCTOBER, "--json").json()
    rows = list(csv.DictReader(io.StringIO(used.type("receipt", "acme", *OCTOBER, "--format", "csv").out, newline="")))
    page = used.type("receipt", "acme", *OCTOBER, "--format", "html")
    shown = used.type("receipt", "acme", *OCTOBER)

    assert [line["run_id"] for line in document["lines"]] == [row["run_id"] for row in rows]
    assert document == used.type("receipt", "acme", *OCTOBER, "--format", "json").json() | {
        "read_at": document["read_at"]
    }
    assert document["subtotals"]["total"] == {"rows": 4, "quantity": 12, "credits": 60}
    assert [row["credits_per_unit"] for row in rows] == ["5"] * 4
    assert [row["not_reported"] for row in rows] == ["0", "0", "15", "15"]
    assert page.out.count('<td data-l="Credits"') == 4
    assert "<strong>60</strong>" in page.out
    assert "4 lines, 12 units, 60 credits in all" in shown.out
    assert "confirmed" in shown.out
    assert "not yet reported" in shown.out
    assert "\x1b" not in shown.out
    assert "<script>" not in page.out


def test_without_a_span_it_is_this_month(used: Terminal) -> None:
    """Given usage in October and now, then the receipt has what is of this month; at its end October has no more."""
    assert used.type("receipt", "acme", "--json").json()["subtotals"]["total"]["rows"] == 1
    cut = ("--from", "2026-10-02", "--to", "2026-10-31T09:30:00")
    assert used.type("receipt", "acme", *cut, "--json").json()["subtotals"]["total"]["rows"] == 2
    whole = ("--from", "2026-10-02", "--to", "2026-10-31T09:30:00.001Z")
    assert used.type("receipt", "acme", *whole, "--json").json()["subtotals"]["total"]["rows"] == 3


def test_a_table_is_bounded_and_says_so(used: Terminal, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given more lines than a table shows, then it shows the first, all sums, and the command for all of this span."""
    monkeypatch.setattr(command, "SHOWN_MAX", 3)
    shown = used.type("receipt", "acme", *OCTOBER).out
    assert "4 lines, 12 units, 60 credits in all" in shown
    (told,) = re.findall(r"^3 of 4 lines shown; all: billing (.*)$", shown, re.MULTILINE)
    everything = used.type(*shlex.split(told)).out
    assert len(list(csv.DictReader(io.StringIO(everything, newline="")))) == 4


def test_a_file_has_the_form_of_its_name(used: Terminal, tmp_path: Path) -> None:
    """Given a file name, then its ending says the form, and --format wins; the command says what it wrote."""
    for name, begin in (("a.html", "<!doctype html>"), ("a.csv", "run_id,"), ("a.json", '{"client_id": "acme"')):
        path = tmp_path / "new" / name
        answer = used.type("receipt", "acme", *OCTOBER, "--output", str(path))
        assert (answer.code, answer.out) == (0, f"{path}: 4 lines, 60 credits\n"), answer
        assert path.read_text().startswith(begin)
    path = tmp_path / "a.csv"
    answer = used.type("receipt", "acme", *OCTOBER, "--output", str(path), "--format", "json", "--json")
    assert answer.json() == {"path": str(path), "lines": 4, "credits": 60}
    assert len(json.loads(path.read_text())["lines"]) == 4


def test_what_cannot_be_is_refused_in_one_line(used: Terminal, tmp_path: Path) -> None:
    """Given a bad client, span, place or combination, then one line, exit code 2, and no file."""
    used.type("receipt", "nobody").refused(2, "nobody", "billing client list")
    used.type("receipt", "bad id").refused(2, "bad id")
    used.type("receipt", "acme", "--from", "yesterday").refused(2, "--from", "yesterday")
    used.type("receipt", "acme", "--from", "2026-10-02", "--to", "2026-10-02").refused(2, "from", "must be before")
    used.type("receipt", "acme", "--from", "0001-01-01T00:00:00+05:00").refused(2, "from", "2000-01-01")
    used.type("receipt", "acme", "--to", "9999-12-31T23:59:59-05:00").refused(2, "to", "3000-01-01")
    used.type("receipt", "acme", "--json", "--format", "csv").refused(2, "--format", "csv")
    used.type("receipt", "acme", "--output", str(tmp_path / "receipt.pdf")).refused(2, "--output", ".html")
    used.type("receipt", "acme", "--output", str(tmp_path), "--format", "html").refused(2, str(tmp_path))
    used.type("receipt", "acme", "--output", "/dev/full", "--format", "csv").refused(2, "/dev/full")
    used.type("receipt", "acme", "--output", "/proc/x.csv").refused(2, "/proc/x.csv", "cannot be written")
    used.type("receipt", "nobody", "--output", str(tmp_path / "a.csv")).refused(2, "nobody")
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_away_or_empty_is_one_line(bare: Terminal, tmp_path: Path) -> None:
    """Given no schema, or no server, then one line, exit code 1, no password, and no file."""
    path = tmp_path / "a.html"
    bare.type("receipt", "acme", "--output", str(path)).refused(1, "billing migrate")
    nowhere = "postgresql://billing:hunter2@127.0.0.1:1/billing"
    bare.type("receipt", "acme", "--output", str(path), BILLING_DATABASE_URL=nowhere).refused(1, "does not answer")
    assert not path.exists()


def test_a_receipt_from_python_is_the_commands(used: Terminal, tmp_path: Path) -> None:
    """Given the same span, then `write_csv` writes what the command prints."""
    settings = Settings(database_url=used.environment["BILLING_DATABASE_URL"])
    start = datetime(2026, 10, 1, tzinfo=UTC)
    receipt = receipts.write_csv(settings, "acme", tmp_path / "a.csv", start, start + timedelta(days=31))
    admin.close(settings)
    assert (receipt.lines, receipt.credits) == (4, 60)
    printed = used.type("receipt", "acme", *OCTOBER, "--format", "csv").out
    # The test runner's output has its line ends made plain.
    assert (tmp_path / "a.csv").read_bytes().decode().replace("\r\n", "\n") == printed
