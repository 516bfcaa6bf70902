"""The suite finds what it is there to find: a sink that breaks one law, in one way, fails the test of that law."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest

from billing.core.errors import BillingError, Unreachable
from billing.sinks.sink import Answer, ErrorReport, Payload, Reply
from tests.contract.sinks import test_answers, test_once
from tests.contract.sinks.memory import Event, MemoryPlace, MemorySink


class CountsAgain(MemorySink):
    """Knows no identifier."""

    def knows(self, payload: Payload) -> bool:
        """Say no."""
        return False


class ForgetsAfterHours(MemorySink):
    """Knows an identifier for some hours only."""

    def knows(self, payload: Payload) -> bool:
        """Look at what came lately."""
        since = self.place.now() - timedelta(hours=12)
        return any(e.payload.identifier == payload.identifier for e in self.place.events if e.received_at > since)


class KnowsKeysOnly(MemorySink):
    """Takes the idempotency key for the identifier."""

    def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Count what comes under another key again."""
        if any(event.key == idempotency_key for event in self.place.events):
            return Reply(answer=Answer.TAKEN, http_status=200)
        return super().send(payload, idempotency_key=idempotency_key)

    def knows(self, payload: Payload) -> bool:
        """Say no."""
        return False


class RefusesDuplicates(MemorySink):
    """Says of a duplicate that it is an error."""

    def duplicate(self, payload: Payload) -> Reply:
        """Refuse it."""
        return self.refused()


class KnowsMinutes(MemorySink):
    """Takes what is in a minute that has something for a duplicate."""

    def knows(self, payload: Payload) -> bool:
        """Compare the minute."""
        return any(event.payload.event_at == payload.event_at for event in self.place.events)


class SaysTaken(MemorySink):
    """Says of a call without an answer that it was taken."""

    def unknown(self) -> Reply:
        """Hope for the best."""
        return Reply(answer=Answer.TAKEN)


class SaysNotExecuted(MemorySink):
    """Says of a call without an answer that nothing was executed."""

    def unknown(self) -> Reply:
        """Hope for the worst."""
        return Reply(answer=Answer.UNREACHED, reason="no answer came", silent=True)


class Raises(MemorySink):
    """Raises for what the other side did."""

    def unknown(self) -> Reply:
        """Raise."""
        raise Unreachable("no answer came")


class RefusesWithUnknown(MemorySink):
    """Does not tell what it refuses from what is lost."""

    def refused(self) -> Reply:
        """Say nothing."""
        return self.unknown()


class ShowsTheTotal(MemorySink):
    """Shows all that a customer has."""

    def inside(self, event: Event, start: datetime, end: datetime) -> bool:
        """Take everything."""
        return True


class EndsTooLate(MemorySink):
    """Takes the minute after the last as well."""

    def inside(self, event: Event, start: datetime, end: datetime) -> bool:
        """Take a minute more."""
        return super().inside(event, start, end + timedelta(minutes=1))


class ShowsEverybody(MemorySink):
    """Shows what all customers have."""

    def total(self, customer_id: str, event_name: str, start: datetime, end: datetime) -> int:
        """Add all up."""
        return sum(MemorySink.total(self, one, event_name, start, end) for one in sorted(self.place.customers))


class WithdrawsTheFirst(MemorySink):
    """Withdraws by minute, not by identifier."""

    def withdraw(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Take back all of a minute."""
        for event in self.place.events:
            if event.payload.event_at == payload.event_at:
                event.counts = False
        return Reply(answer=Answer.TAKEN)


class WithdrawsNothing(MemorySink):
    """Says that it has withdrawn what still counts."""

    def withdraw(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Do nothing."""
        return Reply(answer=Answer.TAKEN)


class ReportsNothing(MemorySink):
    """Drops events and tells nobody."""

    def error_reports(self, since: datetime) -> Iterator[ErrorReport]:
        """Yield nothing."""
        self.reach()
        yield from ()


class ReportsEverybody(MemorySink):
    """Blames every call."""

    def error_reports(self, since: datetime) -> Iterator[ErrorReport]:
        """Report all."""
        self.place.dropped = list(self.place.events)
        return super().error_reports(since)


class TellsTheKey(MemorySink):
    """Repeats the key that it was given."""

    def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Say too much."""
        reply = super().send(payload, idempotency_key=idempotency_key)
        return Reply(answer=reply.answer, reason=f"{self._key} is refused", http_status=reply.http_status)


class TalksAtLength(MemorySink):
    """Returns a page for a reason."""

    def unknown(self) -> Reply:
        """Return two lines."""
        return Reply(answer=Answer.UNKNOWN, reason="<html>\n</html>")


class ExecutesWhatIsTooMuch(MemorySink):
    """Counts a call that it says was one too many."""

    def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Count first."""
        limited = self.place.next_fault == "rate_limit"
        reply = super().send(payload, idempotency_key=idempotency_key)
        if limited:
            self.keep(payload, idempotency_key)
        return reply


class ChecksNothing(MemorySink):
    """Finds every meter good."""

    def check(self, event_name: str) -> None:
        """Look at nothing but the server."""
        self.reach()


_lost = test_once.test_given_an_answer_that_was_lost_when_sent_again_then_the_sink_says_that_it_has_it
_alone = test_once.test_given_increments_of_many_minutes_and_customers_when_sent_then_each_is_shown_alone
_known = test_once.test_given_an_identifier_that_was_counted_when_sent_under_another_key_then_it_is_recognised_for_a_day
_withdrawn = (
    test_once.test_given_an_increment_that_was_counted_when_withdrawn_then_it_counts_no_more_and_the_other_stays
)
_gone = test_answers.test_given_a_customer_who_is_gone_when_sent_then_it_is_refused_or_reported_with_its_key
FAULTS: list[tuple[type[MemorySink], Callable[..., None]]] = [
    (CountsAgain, test_once.test_given_a_call_when_it_is_repeated_under_its_own_key_then_it_counts_once),
    (ForgetsAfterHours, _known),
    (KnowsKeysOnly, _known),
    (RefusesDuplicates, _known),
    (KnowsMinutes, _alone),
    (SaysTaken, test_once.test_given_a_call_that_was_lost_when_sent_again_under_another_key_then_it_is_taken),
    (SaysNotExecuted, _lost),
    (Raises, _lost),
    (RefusesWithUnknown, test_answers.test_given_content_that_is_refused_when_sent_then_it_says_so_and_counts_nothing),
    (ShowsTheTotal, _alone),
    (EndsTooLate, _alone),
    (ShowsEverybody, _alone),
    (WithdrawsTheFirst, _withdrawn),
    (WithdrawsNothing, _withdrawn),
    (ReportsNothing, _gone),
    (ReportsEverybody, _gone),
    (TellsTheKey, test_answers.test_given_a_key_that_is_refused_when_called_then_it_says_so_and_does_not_tell_the_key),
    (TalksAtLength, test_answers.test_given_any_answer_then_its_reason_is_one_line),
    (
        ExecutesWhatIsTooMuch,
        test_answers.test_given_too_many_calls_when_sent_then_it_says_that_nothing_was_executed,
    ),
    (ChecksNothing, test_answers.test_given_a_meter_that_is_not_there_when_checked_then_it_is_fatal),
]


@pytest.mark.parametrize(("kind", "law"), FAULTS, ids=[kind.__name__ for kind, _ in FAULTS])
def test_given_a_sink_that_breaks_a_law_then_the_test_of_that_law_fails(
    kind: type[MemorySink], law: Callable[..., None]
) -> None:
    values = [mark.args for mark in getattr(law, "pytestmark", ()) if mark.name == "parametrize"]
    arguments = [{values[0][0]: value} for value in values[0][1]] if values else [{}]
    assert any(fails(kind, law, given) for given in arguments)
    assert not any(fails(MemorySink, law, given) for given in arguments)


def fails(kind: type[MemorySink], law: Callable[..., None], given: dict[str, Any]) -> bool:
    """Return whether such a sink fails a test of the suite."""
    place = MemoryPlace(kind)
    fixtures: dict[str, Any] = {"place": place}
    if "sink" in inspect.signature(law).parameters:
        fixtures["sink"] = place.sink()
    try:
        law(**fixtures, **given)
    except (AssertionError, BillingError, pytest.fail.Exception):
        return True
    return False
