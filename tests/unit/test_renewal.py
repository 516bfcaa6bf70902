"""The renewals of one process go on whatever one of them comes to, and end with their runs (L5, L9)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from billing.core.clock import SystemClock
from billing.core.errors import Unreachable
from billing.task.renewal import Renewal
from billing.task.run import Run


def a_run(*, renewed_until: float = math.inf) -> Any:
    """Return a run, as far as renewals look at it."""
    return SimpleNamespace(renewed_until=renewed_until)


@pytest.mark.parametrize("error", [Unreachable("Redis is away"), RuntimeError("nobody thought of this")])
def test_l5_a_renewal_that_fails_is_told_and_the_next_one_is_made(
    error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it raised would end the thread, and every hold of the process with it."""
    made: list[Sequence[Run]] = []

    def renew(runs: Sequence[Run]) -> None:
        made.append(runs)
        if len(made) == 1:
            raise error

    monkeypatch.setattr(Renewal, "_start", lambda _: None)
    renewal, run = Renewal(1.0, renew, SystemClock()), a_run()
    renewal.add(run)
    renewal.renew()
    renewal.renew()
    assert made == [[run], [run]]
    assert "1 leases are not renewed" in caplog.text


def test_l9_what_has_ended_or_was_abandoned_is_renewed_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Sequence[Run]] = []
    monkeypatch.setattr(Renewal, "_start", lambda _: None)
    renewal = Renewal(1.0, made.append, SystemClock())
    goes_on, ended, abandoned = a_run(), a_run(), a_run(renewed_until=0.0)
    for run in (goes_on, ended, abandoned):
        renewal.add(run)
    renewal.remove(ended)
    renewal.renew()
    assert made == [[goes_on]]
    assert list(renewal._runs.values()) == [goes_on]
