"""A report: its verdicts, its bounds, and the short forms in which others show it."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.console import Console

from billing.reconciliation.rendering import discrepancies_table, laws_table, summary
from billing.reconciliation.report import DISCREPANCIES_MAX, Discrepancy, Law, Report, Verdict
from billing.reconciliation.tally import Tally

AT = datetime(2026, 11, 21, tzinfo=UTC)


def _report(tally: Tally, resume_after: str | None = None) -> Report:
    return tally.report(run_id=1, started_at=AT, finished_at=AT, resume_after=resume_after)


def _differs(grant_id: int = 7) -> Discrepancy:
    return Discrepancy(law=Law.SPENT.value, client_id="acme", grant_id=grant_id, found="Redis says 41, the log 42")


def test_nothing_compared_holds_and_says_so() -> None:
    report = _report(Tally(Law))
    assert report.ok
    assert {finding.text for finding in report.findings()} == {"nothing to compare"}
    assert summary(report) == "0 clients: all laws hold"


def test_a_law_that_is_broken_names_what_differs_up_to_a_bound() -> None:
    """L9: all discrepancies are counted, some are kept, few are named."""
    tally = Tally([Law.BUCKET, Law.SPENT])
    tally.clients = 2
    tally.found(_differs(number) for number in range(DISCREPANCIES_MAX + 5))

    report = _report(tally)

    assert (report.holds, report.complete, report.ok) == (False, True, False)
    bucket, spent = report.findings()
    assert bucket.holds
    assert not spent.holds
    assert spent.text.startswith("client acme, grant 0: Redis says 41, the log 42; client acme, grant 1: ")
    assert spent.text.endswith(f" … and {DISCREPANCIES_MAX + 2:,} more")
    assert len(report.discrepancies) == DISCREPANCIES_MAX
    assert report.laws[1].discrepancies == DISCREPANCIES_MAX + 5
    assert summary(report) == "2 clients: does not hold: L2 spent"


def test_what_was_not_compared_is_not_fine_and_no_discrepancy() -> None:
    tally = Tally([Law.STRIPE])
    tally.left_out(Law.STRIPE, "Stripe does not answer", 3)

    report = _report(tally)

    assert (report.holds, report.complete, report.ok) == (True, False, False)
    assert report.laws[0].verdict is Verdict.NOT_COMPARED
    (finding,) = report.findings()
    assert not finding.holds
    assert finding.text == "not compared: 3 (Stripe does not answer)"
    assert not _report(Tally(Law), resume_after="acme").complete


def test_a_report_is_shown_whole_in_120_characters() -> None:
    tally = Tally([Law.SPENT])
    tally.compared(Law.SPENT, clients=3, credits=1_234_567)
    tally.found([_differs()])
    report = _report(tally)
    console = Console(width=120)
    with console.capture() as capture:
        console.print(laws_table(report), discrepancies_table(report))
    shown = capture.get()
    assert "L2 spent  BROKEN  1 differ, clients 3, credits 1,234,567" in shown
    assert "Redis says 41, the log 42" in shown
