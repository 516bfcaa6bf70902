"""What beat's task says of a push and its confirmation: what was sent stays said when only the second one fails."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from billing.core.errors import Unreachable
from billing.sinks.stripe import scheduled, sync
from billing.sinks.sync.confirmer import ConfirmReport
from billing.sinks.sync.pusher import PushReport

RUNTIME: Any = None


def test_given_a_confirmation_that_fails_then_what_was_sent_is_counted(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> ConfirmReport:
        raise Unreachable("Stripe: HTTP 503")

    monkeypatch.setattr(sync, "push", lambda _: PushReport(sent=3))
    monkeypatch.setattr(sync, "confirm", fail)

    assert scheduled.push(RUNTIME) == {"sent": 3, "confirmed": 0}
    assert [record.getMessage() for record in caplog.records] == [
        "billing: the report to Stripe stopped: Stripe: HTTP 503"
    ]


def test_given_a_push_that_stopped_then_its_losses_are_logged_and_nothing_is_confirmed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    monkeypatch.setattr(sync, "push", lambda _: PushReport(sent=1, quarantined=2, stopped="Stripe: does not answer"))

    assert scheduled.push(RUNTIME) == {"sent": 1, "confirmed": 0}
    assert [record.getMessage() for record in caplog.records] == [
        "billing: increments: 0 rejected, 2 quarantined, 0 ambiguous",
        "billing: the push to Stripe stopped: Stripe: does not answer",
    ]
