"""A delivery that is put off waits longer from time to time, in one of few queues, and never for ever (L9)."""

from __future__ import annotations

import pytest

from billing.core.errors import InvalidValue
from billing.task.waits import (
    LEVELS,
    WAIT_SECONDS_MAX,
    Waits,
    level_of,
    queue_name,
    read_waits,
    wait_seconds,
    without_waits,
)


def test_the_wait_doubles_up_to_its_bound() -> None:
    """Given more and more waits, then each is twice the one before, up to a minute."""
    waits = [wait_seconds(number, 5.0, 0.5) for number in range(8)]

    assert waits == [5.0, 10.0, 20.0, 40.0, 60.0, 60.0, 60.0, 60.0]
    assert wait_seconds(1_000_000, 5.0, 0.5) == WAIT_SECONDS_MAX


def test_chance_spreads_the_wait_over_a_half_of_it() -> None:
    """Given tasks that were put off together, then they do not come back together."""
    assert (wait_seconds(0, 4.0, 0.0), wait_seconds(0, 4.0, 1.0)) == (3.0, 5.0)


def test_the_queue_is_that_of_the_longest_wait_which_is_not_longer() -> None:
    """Given any wait, then one of eight queues, and at least half a second."""
    assert [level_of(seconds) for seconds in (0.0, 0.4, 0.5, 3.9, 4.0, 45.0, 75.0, 10_000.0)] == [
        500,
        500,
        500,
        2_000,
        4_000,
        30_000,
        60_000,
        60_000,
    ]
    assert {level_of(wait_seconds(9, 5.0, chance / 10)) for chance in range(11)} == {30_000, 60_000}


def test_every_queue_of_tasks_or_exchange_and_wait_has_a_name_of_its_own() -> None:
    """Given names that could be taken for one another, then no two wait queues share one, and none is long."""
    given = ["default", "500", "default.500", "exchange.default", "ä" * 120, "ä" * 119 + "a"]
    ways = [("", name) for name in given] + [(name, "key") for name in given]
    names = [queue_name(exchange, key, level) for exchange, key in ways for level in LEVELS]

    assert len(set(names)) == len(ways) * len(LEVELS)
    assert max(len(name.encode()) for name in names) <= 255
    assert queue_name("", "tasks", 500) == "billing.wait.queue.tasks.500"
    # Routing keys are without number (L9).
    assert queue_name("work", "a.b", 60_000) == queue_name("work", "c", 60_000) == "billing.wait.exchange.work.60000"


def test_waits_for_what_is_away_and_for_credits_are_counted_apart() -> None:
    """Given both, then one does not use up the bound of the other, and the age counts from the first for credits."""
    waits = Waits().once_unavailable().once_exhausted(1_000).once_exhausted(9_000).once_unavailable()

    assert (waits.count, waits.unavailable, waits.exhausted) == (4, 2, 2)
    assert waits.exhausted_seconds(11_000) == 10.0
    assert waits.exhausted_seconds(500) == 0.0
    assert Waits().once_unavailable().exhausted_seconds(9_000) == 0.0
    assert read_waits(waits.headers()) == waits
    assert read_waits({"billing_waits": 3}) == Waits(count=3)
    assert read_waits(None) == Waits()


@pytest.mark.parametrize("value", [-1, True, "7", 1.5, None])
def test_a_count_that_billing_did_not_write_is_refused(value: object) -> None:
    with pytest.raises(InvalidValue, match=r"billing_waits: .* must be a whole number"):
        read_waits({"billing_waits": value})


def test_headers_without_waits_are_those_that_the_sender_gave() -> None:
    """Given a message that came back, then counts and traces of wait queues go, and dead letters of others stay."""
    own = {"queue": "billing.wait.queue.tasks.500", "reason": "expired", "count": 3}
    other = {"queue": "theirs", "reason": "rejected", "count": 1}
    sent = {"billing_at": 17, "team": "x"}
    traces = {
        f"x-{which}-death-{part}": "billing.wait.queue.tasks.500"
        for which in ("first", "last")
        for part in ("queue", "reason")
    }
    counts = Waits().once_exhausted(5).headers()

    assert without_waits(sent | counts | traces | {"x-death": [own]}) == sent
    theirs = {"x-death": [own, other], "x-first-death-queue": "theirs"}
    assert without_waits(sent | theirs) == sent | {"x-death": [other], "x-first-death-queue": "theirs"}


@pytest.mark.parametrize("foreign", ["theirs", 5, {"queue": "theirs"}, [1, None, "theirs"]])
def test_given_an_x_death_that_rabbitmq_did_not_write_then_it_is_left_out(foreign: object) -> None:
    """The delivery would end with an AttributeError instead of waiting, and be lost to its client."""
    assert without_waits({"task": "x", "x-death": foreign}) == {"task": "x"}
    other = {"queue": "theirs", "count": 1}
    assert without_waits({"x-death": [foreign, other]})["x-death"][-1] == other


def test_given_a_count_that_amqp_cannot_carry_once_more_then_it_is_refused() -> None:
    with pytest.raises(InvalidValue, match="billing_waits: 9223372036854775807: must be a whole number of at most 15"):
        read_waits({"billing_waits": 2**63 - 1})
