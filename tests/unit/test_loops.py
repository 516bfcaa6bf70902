"""A loop repeats its job until it is told to stop, and then ends what it has begun, once (L9)."""

from __future__ import annotations

import threading
from typing import NoReturn

import celery
import pytest

import billing
from billing.alerts.announcing import CLAIM
from billing.alerts.receivers import CALL_SECONDS_MAX
from billing.integration.loops import Loop
from billing.integration.services import Services
from tests.waiting import wait_until


def test_what_a_loop_has_begun_is_ended_in_its_own_thread_after_the_last_job() -> None:
    """Given a job under way, when the loop is stopped, then its end comes once, behind that job, though it raised."""
    said: list[str] = []
    begun, go_on = threading.Event(), threading.Event()

    def job() -> NoReturn:
        begun.set()
        go_on.wait()
        said.append("job")
        raise RuntimeError("the job's own trouble")

    loop = Loop("test", 0.001, job, at_end=lambda: said.append(threading.current_thread().name))
    loop.start()
    begun.wait()
    loop.stop()
    go_on.set()
    wait_until(lambda: len(said) == 2, "the loop has ended")
    loop.join(60)
    assert said == ["job", "billing-test"]


def test_an_end_that_fails_is_logged_and_raises_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> NoReturn:
        raise RuntimeError("PostgreSQL is away")

    loop = Loop("test", 60.0, lambda: None, at_end=fails)
    loop.start()
    loop.stop()
    loop.join(60)
    assert "what test has begun is left to the next worker" in caplog.text


def test_what_was_called_is_noted_within_its_claim_though_all_of_redis_is_away() -> None:
    """Given loops whose job raises, then those that claim what they call pause less than the claim's margin."""
    app = billing.setup(celery.Celery("one", broker="memory://", set_as_current=False))
    services = Services(app, hostname="test", queues=[0], on_failure=lambda: None)
    pauses = {loop.name: loop._pause_max for loop in services._loops}
    margin = CLAIM.total_seconds() - CALL_SECONDS_MAX
    assert max(pauses["alerts"], pauses["top-ups"]) < margin == 5.0
