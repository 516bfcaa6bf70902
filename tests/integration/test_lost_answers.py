"""A result backend whose reply is lost when a success is stored: who got the answer SUCCESS pays for it, once (L3)."""

from __future__ import annotations

from typing import Final

import pytest

from tests.fleet.harness import Fleet
from tests.waiting import wait_until

#: See `tests.fleet.unanswered`.
ORDER: Final = "unanswered"

pytestmark = [pytest.mark.integration, pytest.mark.slow]


@pytest.fixture
def unanswering(fleet: Fleet) -> Fleet:
    """Run a worker whose result backend fails on order, and a consumer."""
    fleet.module = "tests.fleet.unanswered"
    fleet.consumer(wait=False)
    fleet.worker(children=1)
    fleet.client("acme", 1_000)
    return fleet


def test_a_success_whose_storing_was_not_confirmed_is_charged(unanswering: Fleet) -> None:
    """Given a success that is stored, when the reply is lost, then the reaper finds it, and settles the draft."""
    fleet = unanswering
    (fleet.directory / ORDER).write_text("stored")
    result = fleet.send("metered", "acme", 5, 3)
    wait_until(lambda: result.state == "SUCCESS", "the caller has the answer")
    (row,) = fleet.wait_for_rows(1)
    assert (row.quantity, row.credits) == (3, 30)
    wait_until(lambda: not fleet.holds("acme"), "no hold")
    assert fleet.balance("acme").spent == 30


def test_a_success_that_could_not_be_stored_is_not_charged(unanswering: Fleet) -> None:
    """Given a success that is not stored, then the hold is back within its lease, and the caller sees a failure."""
    fleet = unanswering
    (fleet.directory / ORDER).write_text("lost")
    result = fleet.send("ok", "acme")
    wait_until(result.ready, "the caller has an answer")
    assert (result.state, type(result.result).__name__) == ("FAILURE", "ConnectionError")
    wait_until(lambda: not fleet.holds("acme"), "no hold")
    assert fleet.rows() == []
    assert fleet.balance("acme").available == 1_000
