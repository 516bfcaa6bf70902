"""The billing pages' own rules: what is asked is bounded, what is not well comes first, and ages are in words."""

from __future__ import annotations

import asyncio
import dataclasses
import threading
from datetime import UTC, datetime, timedelta

import pytest

from billing.catalog.clients import Client
from billing.core.errors import Unreachable
from billing.credits.auditing import BucketReading
from billing.credits.values import Balance
from billing.observability.doctor.finding import fail, ok, warn
from billing.observability.flower.billing_page import clients, fleet, wording
from billing.observability.flower.billing_page.asking import AT_ONCE, Answer, Asking
from billing.observability.flower.billing_page.clients import Found

EMPTY = Balance(client_id="", epoch=1, grants=(), order=(), debt=0, owed=0, available=0, held=0, spent=0, granted=0)
NOW = datetime(2026, 11, 22, 12, 0, tzinfo=UTC)


def test_a_question_without_an_answer_is_asked_once_and_waited_for_within_its_bound() -> None:
    """Given a server that hangs, when the same is asked again, then it joins, and is not asked a second time (L9)."""
    release, asked = threading.Event(), []

    def hang() -> str:
        asked.append(1)
        release.wait()
        return "late"

    async def run() -> None:
        asking = Asking()
        late = await asyncio.gather(*(asking.ask("Redis", "same", hang, seconds=0.01) for _ in range(5)))
        assert {answer.problem for answer in late} == {"Redis has not answered within 0.01 s"}
        assert len(asked) == 1
        release.set()
        while not (found := await asking.ask("Redis", "same", hang)).value:
            pass
        assert found == Answer(value="late")

    asyncio.run(run())


def test_past_its_bound_a_server_is_not_asked_and_another_one_is() -> None:
    """Given as many questions as may be, when one more is asked, then it has its answer at once; others go on (L10)."""
    release = threading.Event()

    async def run() -> None:
        asking = Asking()
        for number in range(AT_ONCE):
            await asking.ask("PostgreSQL", number, release.wait, seconds=0)
        refused = await asking.ask("PostgreSQL", "more", lambda: 1, seconds=60)
        assert refused.problem.startswith(f"PostgreSQL has not answered {AT_ONCE} questions yet")
        assert await asking.ask("Redis", "more", lambda: 1) == Answer(value=1)
        release.set()
        # The threads end by themselves; each turn of the loop lets it hear of one.
        while (found := await asking.ask("PostgreSQL", "more", lambda: 2)).problem:
            await asking.ask("Redis", "a turn", lambda: 1)
        assert found.value == 2

    asyncio.run(run())


def test_what_goes_wrong_is_said_in_words_and_never_as_it_was_raised(caplog: pytest.LogCaptureFixture) -> None:
    def away() -> None:
        raise Unreachable("billing_redis_url: 'redis://h': the server does not answer")

    def broken() -> None:
        raise KeyError("secret")

    async def run() -> None:
        asking = Asking()
        assert (
            await asking.ask("Redis", 1, away)
        ).problem == "billing_redis_url: 'redis://h': the server does not answer"
        assert (await asking.ask("Redis", 2, broken)).problem == (
            "Redis: what it answered could not be read (Flower's log says why)"
        )

    asyncio.run(run())
    assert "KeyError" in caplog.text


def test_what_fails_comes_before_what_warns_and_what_is_well_is_apart() -> None:
    found = (ok("a", "1"), warn("b", "2"), fail("c", "3"), warn("d", "4"), fail("e", "5"))

    assert [finding.part for finding in fleet.concerns(found)] == ["c", "e", "b", "d"]


def line(name: str, available: int | None, owed: int = 0) -> tuple[Client, BucketReading]:
    balance = None
    if available is not None:
        balance = dataclasses.replace(EMPTY, client_id=name, owed=owed, available=available)
    client = Client(client_id=name, shard=0, epoch=1, state="active", overdraft_limit=0, created_at=NOW)
    return client, BucketReading(client_id=name, shard=0, at_ms=1, balance=balance)


def test_the_lowest_balance_is_first_and_one_that_cannot_be_read_before_it() -> None:
    pairs = [line("rich", 9), line("lost", None), line("owes", 0, owed=5), line("poor", 1), line("none", 0)]
    found = Found(clients=[client for client, _ in pairs], more=False)
    buckets = {reading.client_id: reading for _, reading in pairs}

    ordered = [each.client.client_id for each in clients.lines(found, buckets, "lowest")]

    assert ordered == ["lost", "owes", "none", "poor", "rich"]
    assert [each.client.client_id for each in clients.lines(found, None, "lowest")] == [c.client_id for c, _ in pairs]
    many = Found(clients=[line(f"{n:03d}", n)[0] for n in range(200)], more=True)
    assert len(clients.lines(many, {}, "name")) == clients.SHOWN_MAX


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-3, "0 s"),
        (0.4, "0 s"),
        (59.9, "59 s"),
        (60, "1 min"),
        (3_599, "59 min"),
        (3_600, "1 h"),
        (86_400 * 1_234, "1,234 d"),
    ],
)
def test_an_age_is_in_its_largest_unit(seconds: float, words: str) -> None:
    assert wording.age(seconds) == words


def test_moments_are_told_from_now() -> None:
    assert wording.ago(None, NOW) == wording.until(None, NOW) == "never"
    assert wording.ago(NOW - timedelta(minutes=2), NOW) == "2 min ago"
    assert wording.ago(NOW + timedelta(seconds=2), NOW) == "0 s ago"  # another machine's clock is ahead
    assert wording.until(NOW + timedelta(days=2), NOW) == "in 2 d"
    assert wording.until(NOW - timedelta(days=2), NOW) == "2 d ago"
    assert wording.lease(12.5) == "12 s left"
    assert wording.lease(-61) == "over since 1 min"
    assert wording.word("a'; rm -rf /") == "'a'\"'\"'; rm -rf /'"
    assert [wording.detail(value) for value in (1_234, 1.25, "a\x1b[2Jb")] == ["1,234", "1.2", "a\\x1b[2Jb"]
