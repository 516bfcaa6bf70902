"""A question to a server is asked by one thread at a time, at its pace, and a slow answer holds up nobody (L9)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta

import pytest

from billing.core.errors import Fatal, NotMigrated, Unreachable
from billing.observability.overview.part import (
    AGE_SECONDS_MAX,
    FAILED_REST_FACTOR,
    REST_FACTOR,
    REST_SECONDS_MAX,
    SLOW_REST_SECONDS_MAX,
    SLOW_SECONDS_MAX,
    Part,
)
from billing.testing.clock import TestClock

LONG = 60.0


class Asked:
    """A question that answers its number, once it is let go."""

    def __init__(self, clock: TestClock) -> None:
        self.clock = clock
        self.times = 0
        self.seconds = 0.0
        self.error: Exception | None = None
        self.free = threading.Event()
        self.free.set()

    def __call__(self) -> int:
        """Answer."""
        self.times += 1
        assert self.free.wait(LONG)
        self.clock.advance(timedelta(seconds=self.seconds))
        if self.error is not None:
            raise self.error
        return self.times


@pytest.fixture
def clock() -> TestClock:
    return TestClock()


@pytest.fixture
def asked(clock: TestClock) -> Iterator[Asked]:
    made = Asked(clock)
    yield made
    made.free.set()


def part(asked: Asked, *, slow: bool = False, pace: float = 0.0) -> Part[int]:
    return Part("Redis", asked, asked.clock, pace, slow=slow)


def test_an_answer_is_told_and_the_next_question_waits_for_its_pace(asked: Asked) -> None:
    one = part(asked, pace=30.0)
    one.begin()
    assert one.wait(LONG).value == 1
    asked.clock.advance(timedelta(seconds=29))
    one.begin()
    assert one.wait(LONG).value == 1
    asked.clock.advance(timedelta(seconds=1))
    one.begin()
    assert (one.wait(LONG).value, one.wait(LONG).up) == (2, True)


@pytest.mark.parametrize(("slow", "most"), [(False, REST_SECONDS_MAX), (True, SLOW_REST_SECONDS_MAX)])
def test_what_took_long_to_answer_rests_for_longer_within_a_bound(asked: Asked, slow: bool, most: float) -> None:  # noqa: FBT001 - a case of the test
    one = part(asked, slow=slow)
    for seconds, rest in ((0.1, 0.1 * REST_FACTOR), (1_000.0, most)):
        asked.seconds = seconds
        one.begin()
        told = one.wait(LONG).value
        asked.clock.advance(timedelta(seconds=rest - 0.5))
        one.begin()
        assert one.wait(LONG).value == told == asked.times
        asked.clock.advance(timedelta(seconds=0.5))


def test_a_server_that_did_not_answer_is_asked_again_sooner(asked: Asked) -> None:
    one = part(asked)
    asked.seconds, asked.error = 1.5, Unreachable("it does not answer")
    one.begin()
    assert one.wait(LONG).up is False
    asked.clock.advance(timedelta(seconds=1.5 * FAILED_REST_FACTOR - 0.5))
    one.begin()
    assert (one.wait(LONG).up, asked.times) == (False, 1)
    asked.clock.advance(timedelta(seconds=0.5))
    asked.error = None
    one.begin()
    assert one.wait(LONG).value == 2


def test_a_question_that_hangs_is_not_asked_again_and_is_told_as_silent(asked: Asked) -> None:
    one = part(asked)
    asked.free.clear()
    for _ in range(3):
        one.begin()
        asked.clock.advance(timedelta(seconds=3))
        answer = one.wait(0)
        assert (answer.value, answer.up) == (None, False)
    assert answer.finding is not None
    assert answer.finding.seen == "has not answered for 9 s"
    assert asked.times == 1
    asked.free.set()
    assert one.wait(LONG).value == 1


def test_a_slow_question_has_its_last_answer_told_while_the_next_is_under_way_but_not_for_ever(asked: Asked) -> None:
    one = part(asked, slow=True)
    asked.free.clear()
    one.begin()
    assert one.wait(0).finding is None
    asked.clock.advance(timedelta(seconds=SLOW_SECONDS_MAX))
    assert one.wait(0).up is False
    asked.free.set()
    assert one.wait(LONG).value == 1
    asked.clock.advance(timedelta(seconds=SLOW_REST_SECONDS_MAX))
    asked.free.clear()
    one.begin()
    assert one.wait(0).value == 1
    asked.clock.advance(timedelta(seconds=AGE_SECONDS_MAX))
    assert (one.wait(0).value, one.wait(0).up) == (None, False)


def test_a_question_is_asked_at_once_when_there_is_a_reason_also_after_the_one_that_is_under_way(asked: Asked) -> None:
    one = part(asked, pace=30.0)
    one.begin()
    assert one.wait(LONG).value == 1
    one.hurry()
    asked.free.clear()
    one.begin()
    one.hurry()
    asked.free.set()
    assert one.wait(LONG).value == 2
    one.begin()
    assert one.wait(LONG).value == 3
    one.begin()
    assert one.wait(LONG).value == 3


@pytest.mark.parametrize(
    ("error", "up", "said"),
    [
        (Unreachable("billing_redis_url: it does not answer"), False, "does not answer"),
        (NotMigrated("run: billing migrate"), True, "run: billing migrate"),
        (Fatal("the user may not"), True, "the user may not"),
        (ZeroDivisionError("secret"), None, "could not be read (ZeroDivisionError)"),
    ],
)
def test_what_goes_wrong_is_a_finding_and_says_whether_a_server_is_there(
    asked: Asked, error: Exception, *, up: bool | None, said: str
) -> None:
    asked.error = error
    one = part(asked)
    one.begin()
    answer = one.wait(LONG)
    assert (answer.value, answer.up) == (None, up)
    assert answer.finding is not None
    assert said in answer.finding.seen
    assert "secret" not in answer.finding.seen
