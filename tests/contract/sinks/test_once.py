"""One identifier is counted once, however often it is sent, and whatever became of the answers (L8)."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing.sinks.sink import Answer, MeterSink
from tests.contract.sinks.place import HOUR, MINUTE, NOON, UNITS, Place, key, payload

#: For so long a sink must know an identifier.
A_DAY = timedelta(hours=23, minutes=59)


def test_given_an_increment_when_sent_then_it_is_taken_and_shown_in_its_own_minute(
    place: Place, sink: MeterSink
) -> None:
    one = payload(place, place.customer())

    assert sink.send(one, idempotency_key=key(one)).answer is Answer.TAKEN
    assert sink.shown(one) == UNITS


def test_given_an_identifier_that_was_counted_when_sent_under_another_key_then_it_is_recognised_for_a_day(
    place: Place, sink: MeterSink
) -> None:
    one = payload(place, place.customer())
    sink.send(one, idempotency_key=key(one))

    for attempt, passed in ((2, timedelta()), (3, HOUR), (4, A_DAY - HOUR)):
        place.advance(passed)
        reply = sink.send(one, idempotency_key=key(one, attempt))
        assert reply.answer is Answer.DUPLICATE
        assert reply.reason
    assert sink.shown(one) == UNITS


def test_given_a_call_when_it_is_repeated_under_its_own_key_then_it_counts_once(place: Place, sink: MeterSink) -> None:
    one = payload(place, place.customer())

    answers = {sink.send(one, idempotency_key=key(one)).answer for _ in range(3)}

    assert answers <= {Answer.TAKEN, Answer.DUPLICATE}
    assert sink.shown(one) == UNITS


@pytest.mark.parametrize("kind", ["commit_then_close", "commit_then_error"])
def test_given_an_answer_that_was_lost_when_sent_again_then_the_sink_says_that_it_has_it(
    place: Place, sink: MeterSink, kind: str
) -> None:
    one = payload(place, place.customer())
    place.fault(kind)

    assert sink.send(one, idempotency_key=key(one)).answer is Answer.UNKNOWN
    assert sink.shown(one) == UNITS
    assert sink.send(one, idempotency_key=key(one, 2)).answer is Answer.DUPLICATE
    assert sink.shown(one) == UNITS


@pytest.mark.parametrize("kind", ["drop", "error"])
def test_given_a_call_that_was_lost_when_sent_again_under_another_key_then_it_is_taken(
    place: Place, sink: MeterSink, kind: str
) -> None:
    one = payload(place, place.customer())
    place.fault(kind)

    assert sink.send(one, idempotency_key=key(one)).answer is Answer.UNKNOWN
    assert sink.shown(one) == 0
    assert sink.send(one, idempotency_key=key(one, 2)).answer is Answer.TAKEN
    assert sink.shown(one) == UNITS


def test_given_increments_of_many_minutes_and_customers_when_sent_then_each_is_shown_alone(
    place: Place, sink: MeterSink
) -> None:
    customers = [place.customer() for _ in range(2)]
    at = NOON - HOUR + timedelta(seconds=30)
    sent = [
        payload(place, customer, event_at=at - minute * MINUTE, units=10**minute)
        for customer in customers
        for minute in range(3)
    ]

    for one in sent:
        sink.send(one, idempotency_key=key(one))

    assert [sink.shown(one) for one in sent] == [one.units for one in sent]
    first = (NOON - HOUR - 2 * MINUTE).replace(second=0)
    for customer in customers:
        assert sink.total(customer, place.event_name, first, first + 3 * MINUTE) == 111
        assert sink.total(customer, place.event_name, first + MINUTE, first + 3 * MINUTE) == 11
        assert sink.total(customer, place.event_name, first + 3 * MINUTE, first + HOUR) == 0


def test_given_a_lag_when_sent_then_it_is_shown_when_the_lag_is_over_and_not_twice(
    place: Place, sink: MeterSink
) -> None:
    one = payload(place, place.customer())
    place.lag(2 * HOUR)
    sink.send(one, idempotency_key=key(one))

    assert sink.shown(one) == 0
    assert sink.send(one, idempotency_key=key(one, 2)).answer is Answer.DUPLICATE
    place.advance(2 * HOUR)
    assert sink.shown(one) == UNITS


def test_given_an_increment_that_was_counted_when_withdrawn_then_it_counts_no_more_and_the_other_stays(
    place: Place, sink: MeterSink
) -> None:
    customer = place.customer()
    at = NOON - HOUR + timedelta(seconds=30)
    first, second = (payload(place, customer, event_at=at) for _ in range(2))
    for one in (first, second):
        sink.send(one, idempotency_key=key(one))
    assert sink.shown(second) == 2 * UNITS

    assert sink.withdraw(second, idempotency_key=key(second, 2)).answer is Answer.TAKEN
    place.advance(HOUR)

    assert sink.shown(first) == UNITS
