"""The sentence of a story, for what no fleet is brought into in a test's time. Pure."""

from __future__ import annotations

import dataclasses
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from billing.admin.receipt_line import Reported
from billing.core.errors import InvalidValue
from billing.core.ids import run_id
from billing.credits.values import SettledRun, StoredHold
from billing.explaining.evidence import Books, Buckets, Evidence, Held, Letter, Line, Parked, Result, Sent
from billing.explaining.explain import check_task_id, run_id_of, story_of
from billing.explaining.unquoted import unquoted
from billing.sinks.sink import Kind
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.telling.next_step import next_step
from billing.task.trail import Note

NOW = datetime(2026, 11, 22, 12, tzinfo=UTC)
MS = round(NOW.timestamp() * 1_000)
RUN = run_id("acme", "task", nesting=0, nonce="", at_milliseconds=MS)
OTHER = run_id("acme", "task", nesting=0, nonce="other", at_milliseconds=MS + 1)


def line(credits: int = 25, **changes: Any) -> Line:
    made = Line(
        run_id=RUN,
        line=0,
        settlement_id="s",
        client_id="acme",
        correlation_id="task",
        task="search",
        attempt=1,
        sku="page",
        quantity=1,
        credits=credits,
        grants={1: credits},
        price_version=1,
        late=False,
        submitted_at=NOW,
        occurred_at=NOW,
        recorded_at=NOW,
        corrects=None,
        mode=None,
    )
    return dataclasses.replace(made, **changes)


def sent(state: State, increment_id: int = 7) -> Sent:
    made = Increment(
        increment_id=increment_id,
        client_id="acme",
        customer_id="cus_1",
        event_name="billing_credits",
        kind=Kind.METER_EVENT,
        period_start=NOW,
        period_end=NOW + timedelta(days=30),
        units=25,
        credits_per_unit=1,
        generation=1,
        event_at=NOW,
        identifier="b2-1",
        planned_at=NOW,
        state=state,
        reason="no such customer",
    )
    return Sent(increment=made, next=next_step(made, NOW))


def hold(seconds: float) -> Held:
    made = StoredHold(
        run_id=RUN,
        client_id="acme",
        sku="page",
        token="t",
        credits=25,
        grants={1: 25},
        price_version=1,
        attempt=1,
        created_ms=MS,
        deadline_ms=MS + round(seconds * 1_000),
        head=b"",
        lines=b"",
        epoch=1,
    )
    return Held(hold=made, head=None)


def parked(state: Any, **changes: Any) -> Parked:
    made = Parked(
        parked_id=3,
        run_id=RUN,
        client_id="acme",
        task="search",
        sku="page",
        credits=25,
        available=10,
        state=state,
        times=1,
        parked_at=NOW,
        expires_at=NOW + timedelta(days=1),
        ended_at=None if state == "waiting" else NOW,
        begun_at=None,
    )
    return dataclasses.replace(made, **changes)


def verdict(
    books: Books | None = None, buckets: Buckets | None = None, result: Result | None = None, **changes: Any
) -> str:
    found = Evidence(
        task_id="task", now=NOW, books=books or Books(), buckets=buckets or Buckets(now=NOW), result=result
    )
    return story_of(dataclasses.replace(found, **changes)).verdict


@pytest.mark.parametrize(
    ("state", "said"),
    [
        (State.AMBIGUOUS, "sent in increment 7, and whether Stripe has it is not known yet"),
        (State.REJECTED, "rejected by Stripe in increment 7"),
        (State.QUARANTINED, "quarantined in increment 7"),
        (State.WRITTEN_OFF, "written off in increment 7: on no invoice"),
        (State.SENDING, "being sent to Stripe in increment 7"),
    ],
)
def test_where_the_money_is_follows_the_state_of_its_increment(state: State, said: str) -> None:
    reported = (Reported(increment_id=7, state=state.value, credits=25),)
    books = Books(lines=(line(reported=reported),), sent={7: sent(state)}, linked=frozenset({"acme"}))
    assert verdict(books) == f"charged 25 credits, {said}"
    steps = story_of(Evidence(task_id="task", now=NOW, books=books, buckets=None, result=None)).steps
    last = next(step for step in steps if step.what == "next")
    assert "no such customer" in last.detail


def test_credits_that_two_increments_carry_and_some_that_none_does_are_all_told() -> None:
    reported = tuple(Reported(increment_id=n, state="confirmed", credits=10) for n in (7, 8))
    books = Books(
        lines=(line(reported=reported),),
        sent={7: sent(State.CONFIRMED), 8: sent(State.PENDING, 8)},
        linked=frozenset({"acme"}),
    )
    assert verdict(books) == (
        "charged 25 credits, confirmed at Stripe in increment 7, planned in increment 8, not sent yet, "
        "5 of them not reported to Stripe yet"
    )


def test_what_was_outside_the_ceiling_says_so() -> None:
    assert verdict(Books(lines=(line(0, mode="dry_run"),))) == "a dry run: nothing was charged"
    assert verdict(Books(lines=(line(mode="meter_only"),))).startswith("charged 25 credits, while Redis was away, ")
    assert verdict(Books(lines=(line(0),))) == "charged 0 credits"


def test_l5_a_hold_says_until_when_or_that_the_reaper_has_it() -> None:
    assert verdict(buckets=Buckets(held=(hold(40),), now=NOW)) == (
        "running: 25 credits are held, its lease ends in 40 s"
    )
    gone = verdict(buckets=Buckets(held=(hold(-5),), now=NOW))
    assert gone == "its worker is gone: 25 credits are held, and its lease ended 5 s ago; the reaper resolves it"
    retry = verdict(buckets=Buckets(held=(hold(40),), now=NOW), result=Result(state="RETRY"))
    assert retry.startswith("waiting for its retry: 25 credits are held")
    done = verdict(buckets=Buckets(held=(hold(40),), now=NOW), result=Result(state="SUCCESS"))
    assert done.startswith("succeeded, and not settled yet")


def test_a_settled_run_that_is_not_logged_says_where_its_event_is() -> None:
    settled = SettledRun(run_id=RUN, client_id="acme", settlement_id="s", entry_id="1-0")
    buckets = Buckets(settled=(settled,), now=NOW)
    assert verdict(buckets=buckets) == "charged; its usage event is on its way to the usage history"
    letter = Letter(letter_id=3, reason="unknown SKU", state="open", received_at=NOW, ended_at=None, remark="")
    assert verdict(Books(letters=(letter,)), buckets) == (
        "not logged: its usage event is dead letter 3: unknown SKU (billing dead-letters show 3)"
    )
    replayed = dataclasses.replace(letter, state="replayed", ended_at=NOW)
    assert verdict(Books(lines=(line(),), letters=(replayed,)), buckets).startswith("charged 25 credits")


def test_a_parked_task_says_what_it_waits_for_and_how_that_ended() -> None:
    lacks = "client 'acme' had 10 of the 25 credits that it needs"
    assert verdict(Books(parked=(parked("waiting"),))).startswith(f"parked: {lacks}; a grant that makes it affordable")
    assert verdict(Books(parked=(parked("expired"),))) == f"refused: it was parked and expired: {lacks}"
    assert verdict(Books(parked=(parked("cancelled"),))) == f"refused: it was parked and cancelled: {lacks}"
    assert verdict(Books(parked=(parked("started"),))) == "started again after it was parked, and not seen running yet"


def test_runs_that_ended_differently_are_told_apart_in_the_order_of_their_submission() -> None:
    refused = Note(kind="refused", at=MS, task_id="task", run_id=OTHER, client_id="acme", reason="has 0 of 25")
    told = verdict(Books(lines=(line(),), linked=frozenset({"acme"})), Buckets(notes=(refused,), now=NOW))
    assert told == "2 runs: (1) charged 25 credits, not reported to Stripe yet; (2) refused: has 0 of 25"


@pytest.mark.parametrize(
    ("result", "said"),
    [
        (Result(state="FAILURE", error="client 'acme' has 0", client_id="acme"), "refused: client 'acme' has 0"),
        (Result(state="FAILURE", error="ValueError: x"), "failed: ValueError: x; there is no trace of a charge"),
        (Result(state="SUCCESS"), "succeeded, and there is no trace of a charge"),
        (Result(state="STARTED"), "its result says STARTED; there is no trace of a hold or a charge"),
        (None, "not known: no trace of task 'task' in the usage history and its archive"),
    ],
)
def test_without_a_run_the_result_is_all_that_is_known(result: Result | None, said: str) -> None:
    assert verdict(result=result).startswith(said)


def test_a_source_that_did_not_answer_takes_the_certainty_away() -> None:
    told = verdict(Books(lines=(line(),)), unanswered=("Redis: is away",))
    assert told.endswith("- as far as is known: 1 of the sources did not answer")


def test_names_and_reasons_from_outside_move_no_cursor() -> None:
    note = Note(kind="refused", at=MS, task_id="task", run_id=RUN, client_id="ac\x1b[2Jme", reason="\x1b]0;x\x07")
    found = Evidence(task_id="task", now=NOW, books=Books(), buckets=Buckets(notes=(note,), now=NOW), result=None)
    story = story_of(found)
    assert all(text.isprintable() for text in (story.verdict, *(step.detail for step in story.steps)))


def test_an_id_is_a_tasks_or_a_runs() -> None:
    assert run_id_of(str(RUN)) == RUN
    assert run_id_of(RUN.hex) == RUN
    assert run_id_of(str(uuid.uuid4())) is None
    assert run_id_of("search-1") is None
    assert check_task_id("x" * 1_024)
    for wrong in ("", "x" * 1_025, "a\x00", "a\nb", None, 7):
        with pytest.raises(InvalidValue, match="task_id"):
            check_task_id(wrong)


SECRET = "4111-1111"


@pytest.mark.parametrize(
    ("result", "reason", "error", "said"),
    [
        (Result(state="FAILURE", error=f"ValueError: {SECRET}", kind="ValueError"), "", "", "failed: ValueError;"),
        (None, f"quantity: '{SECRET}': must be a number", "InvalidValue", "refused: InvalidValue"),
        (None, "client 'acme' has 0 of 10", "InsufficientCredits", "refused: client 'acme' has 0 of 10"),
    ],
)
def test_who_may_see_no_argument_is_told_an_errors_class(
    result: Result | None, reason: str, error: str, said: str
) -> None:
    """Given an error whose text quotes an argument, then a story without quotes has its class, and no step the text."""
    note = Note(kind="refused", at=MS, task_id="task", run_id=RUN, client_id="acme", reason=reason, error=error)
    buckets = Buckets(notes=(note,) if reason else (), now=NOW)
    found = Evidence(task_id="task", now=NOW, books=Books(), buckets=buckets, result=result)
    story = story_of(unquoted(found))
    assert story.verdict.startswith(said)
    assert SECRET not in story.verdict + "".join(step.detail for step in story.steps)
