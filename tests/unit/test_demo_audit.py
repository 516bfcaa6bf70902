"""The demo's audit: it holds for books that agree, and names each way in which they may not."""

from __future__ import annotations

import dataclasses
import os
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from billing.credits.values import Balance, GrantBalance
from billing.embedded.demo.audit import Audit, audit
from billing.embedded.demo.facts import Books, History
from billing.embedded.demo.receipt_csv import Receipt
from billing.embedded.demo.report import render, summary
from billing.embedded.demo.results import Ending
from billing.embedded.demo.workload import DemoClient, Expected, Order

CLIENT = DemoClient(client_id="acme", credits=100, story="four tasks")
ORDERS = {
    "paid": Order(task="t", arguments={"client_id": "acme"}),
    "also": Order(task="t", arguments={"client_id": "acme"}),
    "poor": Order(task="t", arguments={"client_id": "acme"}, expected=Expected.SUCCESS_OR_REFUSAL),
    "gone": Order(task="t", arguments={"client_id": "acme"}, expected=Expected.FAILURE),
}
ENDINGS = {
    "paid": Ending(succeeded=True),
    "also": Ending(succeeded=True),
    "poor": Ending(succeeded=False, refused=True, error="InsufficientCredits: …"),
    "gone": Ending(succeeded=False, error="PageUnavailable: …"),
}
GRANT = GrantBalance(grant_id=7, granted=100, available=40, spent=60)
BALANCE = Balance(
    client_id="acme",
    epoch=1,
    grants=(GRANT,),
    order=(7,),
    debt=0,
    owed=0,
    available=40,
    held=0,
    spent=60,
    granted=100,
)


def _books(**changes: Any) -> Books:
    history = History(rows=3, credits=60, runs=Counter({"paid": 1, "also": 1}), spent=Counter({7: 60}))
    books = Books(
        balances={"acme": BALANCE},
        granted={"acme": {7: 100}},
        histories={"acme": history},
        rolled_up={"acme": 60},
        spent={"acme": {7: 60}},
        dead_letters=0,
        outbox_entries=0,
    )
    return dataclasses.replace(books, **changes)


def _broken(found: Audit) -> list[str]:
    return [finding.name for finding in found.findings if not finding.holds]


def test_given_books_that_agree_when_audited_then_everything_holds() -> None:
    found = audit([CLIENT], ORDERS, ENDINGS, _books())
    assert found.ok
    tally = found.tallies["acme"]
    assert (tally.submitted, tally.succeeded, tally.refused, tally.failed, tally.unknown) == (4, 2, 1, 1, 0)
    assert summary(found) == "all laws hold; all 4 tasks are accounted for"


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        ({"balances": {"acme": dataclasses.replace(BALANCE, available=41)}}, "L2 conservation"),
        (
            {"balances": {"acme": dataclasses.replace(BALANCE, grants=(dataclasses.replace(GRANT, held=1),))}},
            "L2 conservation",
        ),
        ({"granted": {"acme": {7: 101}}}, "L2 conservation"),
        ({"granted": {}}, "L2 conservation"),
        ({"rolled_up": {"acme": 59}}, "L2 conservation"),
        ({"spent": {"acme": {7: 61}}}, "L2 conservation"),
        ({"dead_letters": 1}, "log complete"),
        ({"outbox_entries": 2}, "log complete"),
    ],
)
def test_given_one_book_that_differs_when_audited_then_its_law_is_named(changes: dict[str, Any], law: str) -> None:
    """L2: granted + owed = available + held + spent, per client and grant, in every book."""
    found = audit([CLIENT], ORDERS, ENDINGS, _books(**changes))
    assert _broken(found) == [law]
    assert not found.ok
    assert summary(found) == f"does not hold: {law}"


@pytest.mark.parametrize(
    ("runs", "named"),
    [
        ({"paid": 1}, "task also of acme succeeded and is not in the log"),
        ({"paid": 1, "also": 2}, "task also of acme was charged 2 times"),
        ({"paid": 1, "also": 1, "poor": 1}, "task poor of acme is in the log and did not succeed"),
        ({"paid": 1, "also": 1, "other": 1}, "task other of acme is in the log and did not succeed"),
    ],
)
def test_given_a_charge_too_few_or_too_many_when_audited_then_the_task_is_named(
    runs: dict[str, int], named: str
) -> None:
    """L3: a run that succeeds has exactly one usage event, one that did not has none."""
    history = History(rows=3, credits=60, runs=Counter(runs), spent=Counter({7: 60}))
    found = audit([CLIENT], ORDERS, ENDINGS, _books(histories={"acme": history}))
    assert _broken(found) == ["L3 one charge"]
    assert named in [finding.text for finding in found.findings]


def test_given_a_hold_that_is_left_when_audited_then_its_client_is_named() -> None:
    """L5: a hold whose worker died is resolved."""
    grant = dataclasses.replace(GRANT, available=28, held=12)
    balance = dataclasses.replace(BALANCE, grants=(grant,), available=28, held=12)
    assert _broken(audit([CLIENT], ORDERS, ENDINGS, _books(balances={"acme": balance}))) == ["L5 no orphan"]


@pytest.mark.parametrize(
    ("task_id", "ending"),
    [
        ("poor", None),
        ("poor", Ending(succeeded=False, error="RuntimeError: …")),
        ("gone", Ending(succeeded=False, error="RuntimeError: …")),
        ("gone", Ending(succeeded=False, refused=True, error="InsufficientCredits: …")),
    ],
)
def test_given_a_task_that_is_not_accounted_for_when_audited_then_it_fails(task_id: str, ending: Ending | None) -> None:
    endings = {name: known for name, known in {**ENDINGS, task_id: ending}.items() if known is not None}
    found = audit([CLIENT], ORDERS, endings, _books())
    assert _broken(found) == ["accounted for"]
    assert task_id in found.findings[-1].text


def test_given_large_numbers_when_shown_in_80_characters_then_none_is_cut() -> None:
    balance = dataclasses.replace(BALANCE, granted=40_000, available=33_949, spent=12_345, held=1_200)
    books = _books(balances={"acme": balance})
    found = audit([CLIENT], ORDERS, ENDINGS, books)
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(width=80, record=True, file=nowhere)
        console.print(render([CLIENT], found, books, [Receipt(path=Path("acme.csv"), lines=3, credits=60)]))
    shown = console.export_text()
    (row,) = [line.split() for line in shown.splitlines() if line.startswith(" acme ")]
    assert row == ["acme", "40,000", "12,345", "1,200", "33,949", "2", "1", "1", "3"]
    assert "acme.csv  3 lines, 60 credits" in shown
