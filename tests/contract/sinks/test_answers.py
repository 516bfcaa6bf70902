"""What a sink's answer says is so; it never raises from a call that sends, and one line says why."""

from __future__ import annotations

from datetime import timedelta

import pytest

from billing.core.errors import Fatal, Rejected, Unreachable
from billing.schema.stripe import UNITS_MAX
from billing.sinks.sink import Answer, MeterSink
from tests.contract.sinks.place import HOUR, MINUTE, NOON, WRONG_KEY, Place, key, payload


def test_given_too_many_calls_when_sent_then_it_says_that_nothing_was_executed(place: Place, sink: MeterSink) -> None:
    one = payload(place, place.customer())
    place.fault("rate_limit")

    reply = sink.send(one, idempotency_key=key(one))

    assert (reply.answer, reply.silent) == (Answer.BUSY, False)
    assert sink.shown(one) == 0
    assert sink.send(one, idempotency_key=key(one, 2)).answer is Answer.TAKEN


def test_given_nobody_who_listens_when_called_then_it_says_that_nothing_was_executed(place: Place) -> None:
    sink = place.sink_without_server()
    one = payload(place, "cus_nobody")

    reply = sink.send(one, idempotency_key=key(one))

    assert (reply.answer, reply.silent, reply.http_status) == (Answer.UNREACHED, True, None)
    with pytest.raises(Unreachable):
        sink.shown(one)
    with pytest.raises(Unreachable):
        sink.total("cus_nobody", place.event_name, NOON - HOUR, NOON)
    with pytest.raises(Unreachable):
        sink.check(place.event_name)
    with pytest.raises(Unreachable):
        list(sink.error_reports(NOON - HOUR))


@pytest.mark.parametrize(
    "content",
    [
        {"event_name": "nothing"},
        {"units": UNITS_MAX + 1},
        {"event_at": NOON - timedelta(days=36)},
    ],
    ids=["no such meter", "too many digits", "too old"],
)
def test_given_content_that_is_refused_when_sent_then_it_says_so_and_counts_nothing(
    place: Place, sink: MeterSink, content: dict[str, object]
) -> None:
    customer = place.customer()
    one = payload(place, customer, **content)

    reply = sink.send(one, idempotency_key=key(one))

    assert (reply.answer, reply.silent) == (Answer.REFUSED, False)
    assert reply.reason
    assert sink.total(customer, place.event_name, NOON - timedelta(days=1), NOON) == 0


def test_given_a_key_that_is_refused_when_called_then_it_says_so_and_does_not_tell_the_key(place: Place) -> None:
    customer = place.customer()
    sink, one = place.sink(key=WRONG_KEY), payload(place, customer)

    reply = sink.send(one, idempotency_key=key(one))

    assert (reply.answer, reply.silent) == (Answer.FORBIDDEN, False)
    assert WRONG_KEY not in repr(reply)
    with pytest.raises(Fatal) as raised:
        sink.total(customer, place.event_name, NOON - HOUR, NOON)
    assert WRONG_KEY not in str(raised.value)


def test_given_a_meter_that_is_not_there_when_checked_then_it_is_fatal(place: Place, sink: MeterSink) -> None:
    sink.check(place.event_name)
    with pytest.raises(Fatal, match="nothing"):
        sink.check("nothing")


@pytest.mark.parametrize(
    "kind", ["drop", "error", "commit_then_close", "commit_then_error", "rate_limit", None], ids=str
)
def test_given_any_answer_then_its_reason_is_one_line(place: Place, sink: MeterSink, kind: str | None) -> None:
    one = payload(place, place.customer())
    if kind is not None:
        place.fault(kind)

    replies = [sink.send(one, idempotency_key=key(one, attempt)) for attempt in (1, 2)]

    assert all("\n" not in reply.reason for reply in replies)


def test_given_a_customer_who_is_gone_when_sent_then_it_is_refused_or_reported_with_its_key(
    place: Place, sink: MeterSink
) -> None:
    gone, other = place.customer(), place.customer()
    place.delete(gone)
    one, two = payload(place, gone), payload(place, other)

    reply = sink.send(one, idempotency_key=key(one))
    assert sink.send(two, idempotency_key=key(two)).answer is Answer.TAKEN
    place.advance(HOUR)

    reported = {sample for report in sink.error_reports(NOON - MINUTE) for sample in report.samples}
    assert reply.answer is Answer.REFUSED or key(one) in reported
    assert key(two) not in reported
    assert sink.shown(two) == two.units


def test_given_a_customer_whom_nobody_knows_when_asked_for_then_it_is_that_customers_error_alone(
    place: Place, sink: MeterSink
) -> None:
    with pytest.raises(Rejected):
        sink.total("cus_nobody", place.event_name, NOON - HOUR, NOON)
    assert sink.total(place.customer(), place.event_name, NOON - HOUR, NOON) == 0
