"""What planner, pusher and confirmer rely on, whatever the increments are stored in."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from billing.sinks.sink import Answer, ErrorReport, Reply
from billing.sinks.sync import protocol
from billing.sinks.sync.increment import Increment, State, attempt_of
from billing.sinks.sync.log import IncrementLog, Open
from billing.sinks.sync.planning.planner import Planner, PlanRules
from tests.contract.increments.books import NOON, Books
from tests.contract.increments.operations import Clock

RULES = PlanRules(meter="credits", calendar=True)
HOUR = timedelta(hours=1)
SEARCH = Open(books="test", now=NOON, most=100)


class Died(BaseException):
    """The planner died."""


class Dying:
    """A planner that dies when it has written, before its transaction ends."""

    def __init__(self, log: IncrementLog) -> None:
        self._log = log

    def plan(self) -> None:
        """Plan what there is, and die."""
        Planner(self, Clock(NOON), RULES).plan()

    def __getattr__(self, name: str) -> Any:
        """Return what the log has."""
        return getattr(self._log, name)

    @contextlib.contextmanager
    def planning(self, *, client_id: str | None = None) -> Iterator[Any]:
        """Begin a slice; die at the end of one that wrote something."""
        with self._log.planning(client_id=client_id) as plan:
            assert plan is not None
            rows = plan.unplanned(after="", rows=10, having=RULES.having, now=NOON)
            yield plan
            if rows and not plan.unplanned(after="", rows=10, having=RULES.having, now=NOON):
                raise Died


def planned(books: Books, *clients: str, plans: int = 1) -> list[Increment]:
    """Add clients, and plan a unit of each, so many times."""
    for client_id in clients:
        books.add(client_id, f"cus_{client_id}")
    for number in range(plans):
        for client_id in clients:
            books.use(client_id, "page", NOON - HOUR, 10)
        Planner(books.log, Clock(NOON + number * timedelta(minutes=5)), RULES).plan()
    return books.increments()


def claim(books: Books, increment_id: int) -> Increment | None:
    """Take an increment for a call."""
    now = NOON + HOUR
    return books.log.claim(increment_id, lambda one: protocol.claimed(one, books="test", now=now))


def answer(books: Books, claimed: Increment, answer: Answer) -> Increment | None:
    """Note an answer to a claim."""
    reply = Reply(answer=answer, reason="so")
    return books.log.note(
        claimed.increment_id,
        lambda one: (
            protocol.answered(one, claimed.attempts, reply, doubted=False),
            attempt_of(claimed, reply, NOON + HOUR),
        ),
    )


def test_given_a_claim_then_its_attempt_is_on_record_before_anything_is_called(books: Books) -> None:
    (one,) = planned(books, "acme")

    claimed = claim(books, one.increment_id)

    assert claimed is not None
    assert books.increments() == [claimed]
    (attempt,) = books.attempts()
    assert (attempt.idempotency_key, attempt.started_at) == (claimed.idempotency_key, NOON + HOUR)
    assert (attempt.outcome, attempt.finished_at) == (None, None)


def test_given_one_in_flight_then_no_other_of_its_customer_and_meter_is_claimed_and_another_customer_is(
    books: Books,
) -> None:
    increments = planned(books, "acme", "brock", plans=2)
    acme = [one.increment_id for one in increments if one.client_id == "acme"]
    brock = [one.increment_id for one in increments if one.client_id == "brock"]

    first = claim(books, acme[0])

    assert first is not None
    assert claim(books, acme[1]) is None
    assert claim(books, acme[0]) is None
    assert claim(books, brock[0]) is not None
    assert answer(books, first, Answer.TAKEN) is not None
    assert claim(books, acme[1]) is not None


def test_given_a_decision_against_it_then_nothing_is_written(books: Books) -> None:
    (one,) = planned(books, "acme")

    assert books.log.claim(one.increment_id, lambda _: None) is None
    assert books.log.change(one.increment_id, lambda _: None) is None
    assert books.log.note(one.increment_id, lambda _: (None, None)) == one
    assert books.increments() == [one]
    assert books.attempts() == []


def test_given_an_increment_that_is_not_there_then_nothing_is_decided(books: Books) -> None:
    planned(books, "acme")

    assert claim(books, 4_711) is None
    assert books.log.change(4_711, lambda one: one) is None
    assert books.log.note(4_711, lambda _: (None, None)) is None
    assert books.log.doubted_by(4_711) is None


def test_given_answers_then_the_attempt_keeps_when_it_began_and_its_key(books: Books) -> None:
    (one,) = planned(books, "acme")
    claimed = claim(books, one.increment_id)
    assert claimed is not None

    noted = answer(books, claimed, Answer.UNKNOWN)

    assert noted is not None
    assert noted.state is State.AMBIGUOUS
    (attempt,) = books.attempts()
    assert (attempt.outcome, attempt.started_at, attempt.reason) == (Answer.UNKNOWN, NOON + HOUR, "so")
    again = claim(books, one.increment_id)
    assert again is not None
    assert [one.idempotency_key for one in books.attempts()] == [f"{one.identifier}#1", f"{one.identifier}#2"]


@pytest.mark.parametrize("changes", [{"units": 11}, {"identifier": "b2-other"}, {"event_at": NOON}], ids=str)
def test_given_a_change_of_what_is_written_once_then_it_is_not_on_record(
    books: Books, changes: dict[str, object]
) -> None:
    (one,) = planned(books, "acme")

    # Each log refuses in its own way, or does not write it.
    with contextlib.suppress(Exception):
        books.log.change(one.increment_id, lambda found: dataclasses.replace(found, **changes))  # type: ignore[arg-type]

    assert books.increments() == [one]


def test_given_a_plan_that_does_not_come_to_its_end_then_nothing_of_it_is_left(books: Books) -> None:
    books.add("acme", "cus_acme")
    books.use("acme", "page", NOON - HOUR, 10)
    before = books.rollups()

    with pytest.raises(Died):
        Dying(books.log).plan()

    assert books.increments() == []
    assert books.rollups() == before
    assert Planner(books.log, Clock(NOON), RULES).plan().increments == 1


def test_given_a_planner_that_leads_then_another_does_not(books: Books) -> None:
    with books.log.planning() as first:
        assert first is not None
        with books.log.planning() as second:
            assert second is None
    with books.log.planning() as third:
        assert third is not None


def test_given_much_that_may_be_sent_then_what_was_tried_least_comes_first(books: Books) -> None:
    increments = planned(books, "acme", "brock", "carol")
    claimed = claim(books, increments[0].increment_id)
    assert claimed is not None
    answer(books, claimed, Answer.BUSY)
    search = dataclasses.replace(SEARCH, now=NOON + HOUR)

    found = [one.increment_id for one in books.log.find_open(search)]

    first, second, third = (one.increment_id for one in increments)
    assert found == [second, third, first]
    assert [one.increment_id for one in books.log.find_open(dataclasses.replace(search, most=1))] == [second]
    assert [one.client_id for one in books.log.find_open(dataclasses.replace(search, client_id="acme"))] == ["acme"]
    assert books.log.find_open(dataclasses.replace(search, without=("credits",))) == []


def test_given_what_is_held_then_it_comes_last(books: Books) -> None:
    """It is not tried, so it would come first for ever, and fill every push (L10)."""
    first, second = planned(books, "acme", "brock")
    held = books.log.change(first.increment_id, lambda one: dataclasses.replace(one, reason=f"{protocol.HELD}a sum"))
    assert held is not None
    search = dataclasses.replace(SEARCH, now=NOON + HOUR)
    assert [one.increment_id for one in books.log.find_open(search)] == [second.increment_id, first.increment_id]


def test_given_a_report_that_comes_again_then_it_is_kept_once_with_those_whom_it_names(books: Books) -> None:
    (one,) = planned(books, "acme")
    claimed = claim(books, one.increment_id)
    assert claimed is not None
    report = ErrorReport(
        event_id="evt_1",
        event_name="credits",
        code="meter_event_customer_not_found",
        count=1,
        window_start=NOON,
        window_end=NOON + HOUR,
        samples=(claimed.idempotency_key, "somebody's"),
    )
    assert books.log.reported_until() is None

    for _ in range(2):
        assert books.log.add_reports([report], NOON + HOUR) == [(report, [one.increment_id])]

    assert books.log.reported_until() == NOON + HOUR
    assert books.log.doubted_by(one.increment_id) is None
    others = dataclasses.replace(report, event_id="evt_2", samples=("somebody's",))
    books.log.add_reports([others], NOON + HOUR)
    assert books.log.doubted_by(one.increment_id) == "meter_event_customer_not_found"
