"""What a process does with a success that Redis does not take (L3, L9). Redis' answers are given; nothing is run."""

from __future__ import annotations

import dataclasses
import math
import uuid
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from billing.catalog.price_book import Price, PriceBook
from billing.core.clock import SystemClock, from_milliseconds
from billing.core.errors import Recovering, Unreachable
from billing.core.settings import Settings
from billing.credits.values import (
    Hold,
    ReleaseOutcome,
    ReserveOutcome,
    ReserveReply,
    SettleOutcome,
    SettleReply,
)
from billing.events.usage_event import Draft, EventHead, UsageLine, decode_draft, encode_draft, encode_head
from billing.task.lifecycle import Lifecycle
from billing.task.outcome import Outcome
from billing.task.pending import RIDERS_MIN, Pending
from billing.task.run import Run
from billing.task.usage import Recorder

RUN_ID = uuid.UUID(int=1)
BOOK = PriceBook([Price(sku="page", version=1, credits_per_unit=5, unit="page", effective_at=from_milliseconds(0))])


class Answers:
    """Answers of Redis and of the broker, and what was asked."""

    def __init__(self, *settles: Any) -> None:
        self.settles = list(settles)
        self.settlement_ids: list[str] = []
        self.published: list[bytes] = []
        self.released: list[str] = []
        self.broker_away = False

    def settle(self, settlement: Any) -> SettleReply:
        """Give the next answer."""
        self.settlement_ids.append(settlement.settlement_id)
        answer = self.settles.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return SettleReply(outcome=answer)

    def node_of(self, _: int) -> str:
        """Return the one server."""
        return ""

    def without_bucket(self, client_id: str, *, missing: bool, corrupt: bool = False) -> Exception:
        """Know the client."""
        assert missing
        return Recovering(f"client {client_id!r}: its shard is being rebuilt")

    def told_charges(self, runs: Any) -> set[uuid.UUID]:
        """Have the buckets know of every charge."""
        return {run_id for _, run_id in runs}

    def release(self, _client_id: str, _run_id: uuid.UUID, token: str) -> ReleaseOutcome:
        """Give a hold back."""
        self.released.append(token)
        return ReleaseOutcome.RELEASED

    def publish(self, _queue: int, body: bytes, *, shard: int, entry_id: str | None) -> None:
        """Take a message."""
        if self.broker_away:
            raise Unreachable("the broker is away")
        assert entry_id is None
        assert shard >= 0
        self.published.append(body)


@pytest.fixture
def run() -> Run:
    """Return a run of one page."""
    head = EventHead(
        run_id=RUN_ID,
        client_id="acme",
        correlation_id="task",
        root_id="task",
        task="t",
        attempt=1,
        submitted_at=None,
        price_version=1,
    )
    hold = Hold(
        run_id=RUN_ID,
        client_id="acme",
        sku="page",
        credits=5,
        token="a",
        price_version=1,
        attempt=1,
        head=encode_head(head),
        lines=b"",
    )
    made: Any = SimpleNamespace(sku="page", task="t", on_redis_down=None)
    identity: Any = SimpleNamespace(run_id=RUN_ID, client_id="acme")
    return Run(
        definition=made,
        identity=identity,
        head=head,
        hold=hold,
        default_quantity=1,
        priced_at=1,
        recorder=Recorder("page"),
        held_until=math.inf,
    )


def lifecycle(answers: Answers, monkeypatch: pytest.MonkeyPatch) -> Lifecycle:
    """Return a lifecycle whose threads do nothing by themselves."""
    monkeypatch.setattr(Pending, "_start", lambda _: None)
    runtime: Any = SimpleNamespace(
        observer=None,
        settings=Settings(),
        clock=SystemClock(),
        prices=SimpleNamespace(get=lambda: BOOK, renewed=lambda: BOOK),
        buckets=answers,
        publisher=answers,
        records=answers,
    )
    made = Lifecycle(runtime)
    monkeypatch.setattr(made.releases, "_start", lambda question: question())
    monkeypatch.setattr(made.renewal, "_start", lambda: None)
    return made


@pytest.mark.parametrize("lost", [True, False])
def test_l10_removals_that_could_not_ride_are_owed_still(
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
    lost: bool,  # noqa: FBT001
) -> None:
    """Given confirmed events that rode with a reserve in vain, then a flush has them, however the reserve ended."""
    entries = [(0, str(number)) for number in range(RIDERS_MIN)]
    flushed: list[Any] = []
    answers: Any = Answers()

    def reserve(_: Hold, *, forget: Any) -> ReserveReply:
        assert forget == entries
        if lost:
            message = "away"
            raise Unreachable(message)
        return ReserveReply(outcome=ReserveOutcome.HELD, required=5, held=5, left=entries[:3])

    def forget_reached(entries: Any) -> list[Any]:
        flushed.extend(entries)
        return []

    answers.reserve, answers.forget_reached = reserve, forget_reached
    cycle = lifecycle(answers, monkeypatch)
    for entry in entries:
        cycle.pending.confirmed(entry)
    if lost:
        with pytest.raises(Unreachable):
            cycle.hold(run)
    else:
        cycle.hold(run)
        assert run in cycle.renewal._runs.values()
    assert cycle.pending.take_riders() == []
    cycle.pending.pay()
    assert flushed == (entries if lost else entries[:3])


def test_l3_what_an_earlier_attempt_recorded_is_not_left_in_the_hold_for_the_reaper(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given a hold of an earlier attempt that had recorded more, when it is taken over, then its draft is replaced."""
    recorded = encode_draft(Draft(priced_at=7, lines=(UsageLine(sku="page", quantity=9, credits=45),)))
    staged: list[Draft] = []
    answers: Any = Answers()
    answers.reserve = lambda _hold, **_: ReserveReply(
        outcome=ReserveOutcome.TAKEN_OVER,
        required=5,
        held=5,
        price_version=1,
        head=encode_head(run.head),
        lines=recorded,
    )
    answers.stage = lambda _client, _run, _token, draft, **_: staged.append(decode_draft(draft))
    lifecycle(answers, monkeypatch).hold(run)
    assert run.priced_at == 7, "the prices of the first reserve stand"
    assert [(draft.priced_at, [line.quantity for line in draft.lines]) for draft in staged] == [(7, [1])]


def test_l10_a_settle_without_prices_says_nothing_of_its_server(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a settle that waits for its prices, and one that waits for Redis, then the second is paid (L3)."""
    answers = Answers(Unreachable("away"), SettleOutcome.SETTLED)
    cycle = lifecycle(answers, monkeypatch)
    waiting = dataclasses.replace(run, head=msgspec.structs.replace(run.head, price_version=7))
    cycle.succeed(waiting)
    cycle.succeed(run)
    cycle.pending.pay()
    assert (waiting.outcome, run.outcome) == (Outcome.PENDING, Outcome.CHARGED)


def test_a_settle_is_the_same_settlement_on_every_try(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given an answer that was lost, when the settle is tried again, then Redis can tell that it is the same one."""
    answers = Answers(Unreachable("away"), Unreachable("away"), SettleOutcome.ALREADY)
    cycle = lifecycle(answers, monkeypatch)
    cycle.renewal.add(run)

    cycle.succeed(run)
    cycle.succeed(run)
    cycle.pending.pay()
    assert run in cycle.renewal._runs.values()
    cycle.pending.pay()

    assert len(answers.settlement_ids) == 3
    assert len(set(answers.settlement_ids)) == 1
    assert not cycle.renewal._runs


def test_a_settle_that_is_refused_for_good_is_left_to_the_reaper(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a settle that Redis will never take, then its hold is renewed no longer, so that it is looked at."""
    cycle = lifecycle(Answers(SettleOutcome.TOO_LARGE, SettleOutcome.TOO_LARGE), monkeypatch)
    cycle.renewal.add(run)

    cycle.succeed(run)
    cycle.pending.pay()

    assert not cycle.renewal._runs


def test_a_process_that_ends_charges_by_a_direct_event(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a Redis that stays away, when the process ends, then one event of epoch 0 carries the charge (L3)."""
    answers = Answers(*[Unreachable("away")] * 100)
    cycle = lifecycle(answers, monkeypatch)
    monkeypatch.setattr("billing.task.lifecycle._CLOSE_SECONDS", 0)

    cycle.succeed(run)
    cycle.close()

    (body,) = answers.published
    assert b'"epoch":0' in body
    assert b'"grants":[{"grant":0,"credits":5}]' in body
    assert answers.settlement_ids[0].encode() in body
