"""What is said of who was seen: beat, consumers that live, fell silent, or are not there."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from billing.observability.liveness.judging import is_beat_silent, judge, told, unserved
from billing.observability.liveness.seen import LastSeen

THEN = datetime(2026, 3, 1, tzinfo=UTC)


def consumer(name: str, age_seconds: float, served: str = "0,1", queues: int = 2) -> LastSeen:
    details = {"served": served, "queues": queues, "in_hand": 3}
    return LastSeen(
        process="consumer", name=name, started_at=THEN, seen_at=THEN, age_seconds=age_seconds, details=details
    )


def beat(age_seconds: float) -> LastSeen:
    return LastSeen(process="beat", name="beat", started_at=THEN, seen_at=THEN, age_seconds=age_seconds, details={})


def said(*rows: LastSeen, has_charged: bool = True) -> list[tuple[str, str]]:
    """Return verdict and words, and see that each that is not ok says what to do."""
    findings = judge([beat(5), *rows], 2, has_charged=has_charged)[1:]
    assert all(finding.advice for finding in findings if finding.verdict.value != "ok")
    return [(finding.verdict.value, finding.seen) for finding in findings]


def test_a_consumer_that_lives_is_well() -> None:
    assert said(consumer("one", 4)) == [("ok", "consumer one was seen 4 s ago, 3 events in hand")]


def test_a_consumer_that_is_subscribed_to_nothing_is_told() -> None:
    assert said(consumer("one", 4, queues=0)) == [
        ("warn", "consumer one was seen 4 s ago, and is subscribed to nothing")
    ]


def test_no_consumer_is_a_failure_once_something_was_charged() -> None:
    """Given a consumer that was stopped on purpose, then it is not silent, but nobody writes the log."""
    seen = "no consumer is seen: nothing is written to the usage history"
    assert said() == [("fail", seen)]
    assert said(has_charged=False) == [("warn", seen)]


def test_a_silent_consumer_fails_while_nobody_serves_its_queues() -> None:
    silent = ("fail", "consumer one is silent: it was seen 3 min ago")
    assert said(consumer("one", 200))[0] == silent
    assert said(consumer("one", 200), consumer("two", 3, "0")) == [
        ("ok", "consumer two was seen 3 s ago, 3 events in hand"),
        ("fail", "consumer one is silent: it was seen 3 min ago"),
        ("fail", "usage queues that no living consumer serves: 1"),
    ]


def test_a_silent_consumer_is_news_for_an_hour_where_another_serves_its_queues() -> None:
    """Given a pod that was replaced, then its row is no warning for a week."""
    verdicts = [verdict for verdict, _ in said(consumer("one", 200), consumer("two", 3))]
    assert verdicts == ["ok", "warn"]
    assert [verdict for verdict, _ in said(consumer("one", 4_000), consumer("two", 3))] == ["ok"]


@pytest.mark.parametrize(("age_seconds", "verdict"), [(90, "ok"), (900, "warn"), (2_000, "fail")])
def test_beat_is_late_before_it_is_silent(age_seconds: float, verdict: str) -> None:
    """Given a solo worker that is busy with one task for a while, then beat is late; past half an hour it is silent."""
    found = judge([beat(age_seconds), consumer("one", 1)], 2, has_charged=True)[0]
    assert (found.verdict.value, found.seen) == (verdict, f"beat was seen {told(age_seconds)} ago")
    assert is_beat_silent([beat(age_seconds)]) == (verdict == "fail")


def test_a_beat_that_was_never_there_is_told_and_not_silent() -> None:
    assert judge([], 2, has_charged=True)[0].verdict.value == "warn"
    assert not is_beat_silent([])


def test_queues_are_served_by_those_that_live() -> None:
    assert unserved([consumer("one", 1, "0"), consumer("two", 1, "2"), consumer("dead", 61, "1")], 4) == [1, 3]
    assert unserved([], 2) == [0, 1]


def test_ages_are_said_as_a_person_does() -> None:
    assert [told(seconds) for seconds in (4.4, 119, 120, 3_600, 7_200, 90_000)] == [
        "4 s",
        "119 s",
        "2 min",
        "60 min",
        "2 h 0 min",
        "25 h 0 min",
    ]
