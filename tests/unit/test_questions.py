"""Whoever asks PostgreSQL waits within a bound, and one question goes on at a time (L9, L10)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from typing import Final, NoReturn

import pytest

from billing.core.errors import UnknownClient, Unreachable
from billing.task import questions as asking
from billing.task.questions import QUESTION_SECONDS_MAX, Questions
from billing.testing.clock import TestClock
from tests.waiting import LIMIT_SECONDS, wait_until

#: What nobody waits for in vain: the answer is there, or it is known that none comes.
LONG: Final = LIMIT_SECONDS


class Server:
    """Answers with a number, once it is let go."""

    def __init__(self) -> None:
        self.asked = 0
        self.let_go = threading.Event()

    def answer(self) -> int:
        """Answer."""
        self.asked += 1
        self.let_go.wait()
        return self.asked


@pytest.fixture
def server() -> Iterator[Server]:
    """Make a server that hangs, and let its askers go afterwards."""
    server = Server()
    yield server
    server.let_go.set()


@pytest.fixture
def clock() -> TestClock:
    """Make a clock that stands."""
    return TestClock()


def test_what_was_answered_or_raised_reaches_who_asked(clock: TestClock) -> None:
    questions = Questions(clock)
    assert questions.ask(lambda: "yes", seconds=LONG) == "yes"

    def unknown() -> NoReturn:
        raise UnknownClient("acme")

    def gave_up() -> NoReturn:
        raise TimeoutError("the question's own")

    with pytest.raises(UnknownClient):
        questions.ask(unknown, seconds=LONG)
    with pytest.raises(TimeoutError, match="the question's own"):
        questions.ask(gave_up, seconds=LONG)
    assert questions.ask(lambda: "again", seconds=LONG) == "again"


def test_l10_one_waits_for_a_server_that_hangs_and_the_others_do_not(server: Server, clock: TestClock) -> None:
    """Given a question that was waited for in vain, then who asks meanwhile is refused at once, and asks nothing."""
    questions = Questions(clock)
    with pytest.raises(Unreachable):
        questions.ask(server.answer, seconds=0.01)
    for _ in range(100):
        with pytest.raises(Unreachable):
            questions.ask(server.answer, seconds=LONG)
    assert server.asked == 1

    server.let_go.set()
    wait_until(lambda: questions._going is None, "the question ended")
    assert questions.ask(server.answer, seconds=LONG) == 2


def test_who_asks_while_another_is_answered_has_the_next_turn(server: Server, clock: TestClock) -> None:
    """Given a server that answers, then nobody is refused for having asked at the same time."""
    questions = Questions(clock)
    with ThreadPoolExecutor(8) as pool:
        answers = [pool.submit(questions.ask, server.answer, seconds=LONG) for _ in range(8)]
        wait_until(lambda: server.asked, "one is asked")
        server.let_go.set()
        assert sorted(answer.result() for answer in answers) == list(range(1, 9))


def test_l9_a_question_that_never_ends_is_given_up(server: Server, clock: TestClock) -> None:
    """Given a connection that hangs for ever while the server answers others, then it keeps back nobody for ever."""
    questions = Questions(clock)
    with pytest.raises(Unreachable):
        questions.ask(server.answer, seconds=0.01)
    clock.advance(timedelta(seconds=QUESTION_SECONDS_MAX))
    assert questions.ask(lambda: "answered", seconds=LONG) == "answered"
    server.let_go.set()
    assert questions.ask(lambda: "answered", seconds=LONG) == "answered"


def test_where_no_thread_is_to_be_had_then_the_next_may_ask(clock: TestClock, monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a machine without a thread left, or an interpreter that ends, then it is as if the server was away."""
    questions = Questions(clock)

    def refuse(*_: object, **__: object) -> NoReturn:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(asking, "call_apart", refuse)
        with pytest.raises(Unreachable, match="can't start new thread"):
            questions.ask(lambda: "answered", seconds=LONG)
    assert questions.ask(lambda: "answered", seconds=LONG) == "answered"
