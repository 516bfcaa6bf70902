"""What a replay decides and adds up without any server: identities, prices, tallies, findings, standings."""

from __future__ import annotations

import dataclasses
import os
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from rich.console import Console

from billing.catalog.price_book import Price, PriceBook
from billing.core import ids
from billing.core.clock import from_milliseconds
from billing.core.errors import InvalidValue
from billing.workload.charges import Charges
from billing.workload.findings import rows_accounted, rows_charged
from billing.workload.identity import Identity, fingerprint
from billing.workload.price_list import prices_to_set, read_prices
from billing.workload.results import Ending
from billing.workload.row_task import arguments, verify_row
from billing.workload.rows import Malformed, Row
from billing.workload.standing import Standing, clients_table, largest, total
from billing.workload.tally import NAMED_MAX, Account

AT = datetime(2026, 11, 21, 8, 0, 0, 123_000, tzinfo=UTC)
ROW = Row(line=7, client_id="acme", sku="page", quantity=3, at=AT)
IDENTITY = Identity(digest="d" * 64, started_at=AT)
BOOK = PriceBook([Price(sku="page", version=1, credits_per_unit=5, unit="page", effective_at=from_milliseconds(0))])


def test_a_row_has_one_task_id_and_one_run_id_whoever_asks() -> None:
    """L3: the same on every start; another line, file or first start is another run."""
    task_id = IDENTITY.task_id(7)
    assert task_id == IDENTITY.task_id(7)
    later = Identity(digest="d" * 64, started_at=AT + timedelta(milliseconds=1))
    others = {IDENTITY.task_id(8), Identity(digest="e" * 64, started_at=AT).task_id(7), later.task_id(7)}
    assert len(others - {task_id}) == 3
    run_id = IDENTITY.run_id(ROW, task_id)
    low, high = IDENTITY.run_ids
    assert low <= run_id < high
    assert ids.milliseconds_of(run_id) == IDENTITY.headers["billing_at"]
    assert not low <= later.run_id(ROW, task_id) < high
    assert fingerprint(uuid.UUID(int=(1 << 100) + 5)) == 5


def test_a_row_that_does_not_come_as_it_was_sent_is_refused() -> None:
    sent = arguments(ROW)
    assert verify_row(*sent) == sent[-1]
    for place, other in enumerate(("other", "call", 4, 8, None)):
        changed = (*sent[:place], other, *sent[place + 1 :])
        with pytest.raises(InvalidValue, match="did not come as it was sent"):
            verify_row(*changed)  # type: ignore[arg-type]


def test_prices_are_read_and_the_one_in_effect_wins() -> None:
    assert prices_to_set(BOOK, 1, ["page", "call"], read_prices(())) == ({"page": 5, "call": 1}, {"call": 1})
    assert prices_to_set(BOOK, 1, ["call"], read_prices(("2",))) == ({"call": 2}, {"call": 2})
    given = read_prices(("2", "page=5", "page=5", "call=0"))
    assert prices_to_set(BOOK, 1, ["page", "call"], given) == ({"page": 5, "call": 0}, {"call": 0})


@pytest.mark.parametrize(
    ("options", "refused"),
    [
        (("cheap",), "--price: 'cheap'"),
        (("-1",), "--price: -1"),
        (("page=",), "--price: ''"),
        (("=5",), "--price: ''"),
        (("Page=5",), "--price: 'Page'"),
        (("page=1", "page=2"), "--price: 'page=2': contradicts page=1"),
        (("1", "2"), "--price: '2': contradicts 1"),
        (("1",), "--price: 'page=1': costs 5 credits already"),
        (("call=1",), "--price: 'call': is no SKU of the file"),
    ],
)
def test_prices_that_will_not_do_are_refused(options: tuple[str, ...], refused: str) -> None:
    with pytest.raises(InvalidValue) as error:
        prices_to_set(BOOK, 1, ["page"], read_prices(options))
    assert str(error.value).startswith(refused)


def account(*endings: Ending) -> Account:
    """Return the account of one row of `acme` per ending, 3 units each."""
    made = Account()
    for number, ending in enumerate(endings):
        made.submit("acme")
        made.end("acme", ending, line=number, quantity=3, mark=number + 1)
    return made


SUCCESS = Ending(succeeded=True)
REFUSAL = Ending(succeeded=False, refused=True, error="InsufficientCredits: …")
FAILURE = Ending(succeeded=False, error="ValueError: …")


def test_the_account_adds_up_and_says_what_is_open() -> None:
    made = account(SUCCESS, REFUSAL, SUCCESS)
    made.skip(Malformed(line=9, reason="is empty"))
    assert made.complete
    assert made.sentence() == "4 rows = 2 charged + 1 refused for credits + 1 malformed"
    assert rows_accounted(made).holds
    made.submit("acme")
    assert not made.complete
    assert made.sentence().endswith("+ 1 malformed + 1 not known")
    assert not rows_accounted(made).holds
    failed = account(SUCCESS, FAILURE)
    assert failed.sentence() == "2 rows = 1 charged + 0 refused for credits + 0 malformed + 1 failed"
    assert (failed.complete, rows_accounted(failed).holds) == (False, False)


def test_only_the_first_malformed_lines_and_failures_are_kept() -> None:
    """L9: all are counted."""
    made = account(*[FAILURE] * (NAMED_MAX + 5))
    for line in range(NAMED_MAX + 5):
        made.skip(Malformed(line=line, reason="is empty"))
    assert (made.malformed, made.failed) == (NAMED_MAX + 5, NAMED_MAX + 5)
    assert (len(made.first_malformed), len(made.first_failed)) == (NAMED_MAX, NAMED_MAX)


RIGHT = Charges(runs=2, quantity=6, credits=30, fingerprint=3)


def test_rows_that_the_log_agrees_with_hold() -> None:
    found = rows_charged(account(SUCCESS, SUCCESS, REFUSAL), {"acme": RIGHT})
    assert found.holds
    assert found.text == "2 rows ended in a charge; the log has exactly these, one run each, 30 credits"


@pytest.mark.parametrize(
    "log",
    [
        {},
        {"acme": dataclasses.replace(RIGHT, runs=3)},
        {"acme": dataclasses.replace(RIGHT, quantity=7)},
        {"acme": dataclasses.replace(RIGHT, mispriced=1)},
        {"acme": dataclasses.replace(RIGHT, fingerprint=4)},
        {"acme": RIGHT, "globex": RIGHT},
    ],
)
def test_one_run_too_few_too_many_or_of_another_row_is_named(log: dict[str, Charges]) -> None:
    """L3: by number, quantity, what they cost, and by which runs they are."""
    found = rows_charged(account(SUCCESS, SUCCESS, REFUSAL), log)
    assert not found.holds
    assert ("globex" if "globex" in log else "acme") in found.text


@pytest.mark.parametrize("name", ["[/]", "[red]acme", "a[b]c"])
def test_a_client_whose_name_looks_like_markup_is_shown_as_it_is(name: str) -> None:
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(width=100, record=True, file=nowhere)
        console.print(clients_table([Standing(name=name)]))
    assert name in console.export_text()


def test_the_largest_clients_have_a_line_and_the_sums_are_of_all() -> None:
    standings = [Standing(name=f"c{n:02d}", spent=n, granted=100, usage_rows=1) for n in range(25)]
    shown = largest(standings)
    assert [standing.name for standing in shown] == [f"c{n:02d}" for n in range(24, 14, -1)] + ["15 others"]
    assert total(shown, "x") == total(standings, "x")
    assert largest(standings[:10]) == standings[:10]
    assert clients_table(shown).row_count == 11
