"""The demo's audit: it holds for tasks that ended as the log says, and names each way in which they may not."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from rich.console import Console

from billing.embedded.demo.audit import Audit, audit
from billing.embedded.demo.report import render
from billing.embedded.demo.workload import DemoClient, Expected, Order
from billing.receipts import Receipt
from billing.reconciliation.report import Finding
from billing.workload.ending import Ended
from billing.workload.results import Ending
from billing.workload.standing import Standing, summary

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
RUNS = {("acme", "paid"): 1, ("acme", "also"): 1}


def _broken(found: Audit) -> list[str]:
    return [finding.law for finding in found.findings if not finding.holds]


def test_given_tasks_that_the_log_agrees_with_when_audited_then_everything_holds() -> None:
    found = audit([CLIENT], ORDERS, ENDINGS, RUNS, {"acme": 0})
    assert _broken(found) == []
    tally = found.tallies["acme"]
    assert (tally.submitted, tally.succeeded, tally.refused, tally.failed, tally.unknown) == (4, 2, 1, 1, 0)
    assert summary(found.findings, "all 4 are there") == "all laws hold; all 4 are there"


@pytest.mark.parametrize(
    ("runs", "named"),
    [
        ({("acme", "paid"): 1}, "task also of acme succeeded and is not in the log"),
        ({("acme", "paid"): 1, ("acme", "also"): 2}, "task also of acme was charged 2 times"),
        (RUNS | {("acme", "poor"): 1}, "task poor of acme is in the log and did not succeed"),
        (RUNS | {("acme", "other"): 1}, "task other of acme is in the log and did not succeed"),
        (RUNS | {("globex", "paid"): 1}, "task paid of globex is in the log and did not succeed"),
    ],
)
def test_given_a_charge_too_few_or_too_many_when_audited_then_the_task_is_named(
    runs: dict[tuple[str, str], int], named: str
) -> None:
    """L3: a run that succeeds has exactly one usage event, one that did not has none."""
    found = audit([CLIENT], ORDERS, ENDINGS, runs, {"acme": 0})
    assert _broken(found) == ["L3 tasks"]
    assert named in [finding.text for finding in found.findings]
    assert summary(found.findings, "…") == "does not hold: L3 tasks"


def test_given_a_hold_that_is_left_when_audited_then_its_client_is_named() -> None:
    """L5: a hold whose worker died is resolved."""
    found = audit([CLIENT], ORDERS, ENDINGS, RUNS, {"acme": 12})
    assert _broken(found) == ["L5 no hold left"]
    assert "acme still holds 12" in [finding.text for finding in found.findings]


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
    found = audit([CLIENT], ORDERS, endings, RUNS, {"acme": 0})
    assert _broken(found) == ["accounted for"]
    assert task_id in found.findings[-1].text


def test_given_large_numbers_when_shown_in_80_characters_then_none_is_cut() -> None:
    standing = Standing(
        name="atlas-archive",
        granted=40_000,
        spent=12_345,
        held=1_200,
        available=33_949,
        succeeded=2_385,
        rejected=106,
        failed=5,
        usage_rows=4_729,
        stripe_units=12_345,
    )
    ended = Ended(
        findings=(Finding(law="L2 bucket", holds=False, text="acme: 1 is not 2"),),
        standings=(standing, Standing(name="acme", granted=5)),
    )
    with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
        console = Console(width=80, record=True, file=nowhere)
        console.print(render(ended, [Receipt(path=Path("acme.csv"), lines=3, credits=60)]))
    shown = console.export_text()
    rows = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if line.strip()}
    numbers = ["12,345", "1,200", "33,949", "2,385", "106", "5", "4,729", "12,345"]
    assert rows["atlas-archive"] == ["40,000", *numbers]
    assert rows["all"] == ["40,005", *numbers]
    assert "L2 bucket  BROKEN  acme: 1 is not 2" in shown
    assert "acme.csv  3 lines, 60 credits" in shown
    assert not ended.ok
