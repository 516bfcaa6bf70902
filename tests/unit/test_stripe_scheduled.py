"""What beat's tasks say of a push, a confirmation and the error reports: one line for each thing that stops."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from billing.core.errors import Unreachable
from billing.sinks.stripe import scheduled, wiring
from billing.sinks.sync.calling.confirmer import ConfirmReport
from billing.sinks.sync.calling.pusher import PushReport
from billing.sinks.sync.calling.reports import ReportsReport

RUNTIME: Any = None


@pytest.mark.parametrize(
    ("name", "task", "counted"),
    [
        ("push", scheduled.push, "sent"),
        ("confirm", scheduled.confirm, "confirmed"),
        ("read_reports", scheduled.errors, "reports"),
    ],
)
def test_given_a_stripe_that_does_not_answer_then_it_is_one_line(
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
    task: Callable[[Any], dict[str, int]],
    counted: str,
) -> None:
    def fail(_: object) -> ConfirmReport:
        raise Unreachable("Stripe: HTTP 503")

    monkeypatch.setattr(wiring, name, fail)

    assert task(RUNTIME) == {counted: 0}
    assert [record.getMessage() for record in caplog.records] == [
        "billing: the report to Stripe stopped: Stripe: HTTP 503"
    ]


def test_given_a_push_that_stopped_then_its_losses_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What was sent stays said; a meter that takes nothing is a line of its own."""
    caplog.set_level(logging.ERROR)
    report = PushReport(sent=1, ambiguous=2, refused=("'pages': is no meter",), stopped="Stripe: does not answer")
    monkeypatch.setattr(wiring, "push", lambda _: report)

    assert scheduled.push(RUNTIME) == {"sent": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "billing: increments: 0 rejected, 2 ambiguous",
        "billing: a meter takes nothing, and its increments wait: 'pages': is no meter",
        "billing: the push to Stripe stopped: Stripe: does not answer",
    ]


def test_given_doubt_that_a_confirmation_found_then_it_is_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wiring, "confirm", lambda _: ConfirmReport(checked=5, confirmed=2, quarantined=2, withdrawn=1))

    assert scheduled.confirm(RUNTIME) == {"confirmed": 2}
    assert [record.getMessage() for record in caplog.records] == [
        "billing: increments: 2 quarantined, 1 counted twice and withdrawn"
    ]


def test_given_reports_of_what_was_dropped_then_they_are_logged(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(wiring, "read_reports", lambda _: ReportsReport(read=3, rejected=2))

    assert scheduled.errors(RUNTIME) == {"reports": 3}
    assert [record.getMessage() for record in caplog.records] == [
        "billing: Stripe took and dropped increments: 2 rejected, 0 quarantined (see: billing sync status)"
    ]
