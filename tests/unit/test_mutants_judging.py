"""A mutant is killed by what its tests say, and never by a server that is away or a machine that is slow."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.mutants.judging import Sign, judged, read
from tests.mutants.mutant import Mutant, Result

TEST = "tests/a.py::test_a"
PASSED = (0, "1 passed")
FAILED = (1, f"E   assert 1 == 2\nFAILED {TEST}[one two] - assert 1 == 2")
AWAY = (1, f"E   redis.exceptions.ConnectionError: Error 111 connecting: Connection refused.\nFAILED {TEST} - redis")
LATE = (1, f"E   AssertionError: not within 45 s: a row\nFAILED {TEST} - AssertionError")
ERRED = (1, f"E   AssertionError: no\nERROR {TEST} - AssertionError: no")
OTHER = (1, "E   AssertionError: no\nERROR tests/a.py::test_other - AssertionError: no")
UNREADABLE = (1, f"E   NameError: name 'x'\nFAILED {TEST} - NameError")
ENDLESS = (None, "")
CRASHED = (3, "INTERNALERROR")
COMMAND = ["tests/a.py", "tests/b.py", "-k", "valkey"]
NARROWED = [TEST, "-k", "valkey"]

Ran = tuple[int | None, str]


class Runs:
    """Answers runs in their order, and keeps what was asked for, and whether it was with the mutant."""

    def __init__(self, *answers: Ran) -> None:
        self._answers = list(answers)
        self.asked: list[tuple[list[str], bool]] = []

    def made(self, command: Sequence[str]) -> Ran:
        """Answer a run with the mutant."""
        self.asked.append((list(command), True))
        return self._answers.pop(0)

    def without(self, command: Sequence[str]) -> Ran:
        """Answer a run without it."""
        self.asked.append((list(command), False))
        return self._answers.pop(0)


def judge(runs: Runs, *commands: Sequence[str], hangs: bool = False) -> tuple[Result, str]:
    mutant = Mutant(
        name="one", laws="L1", file="a.py", text="a < b", becomes="a <= b", tests=("tests/a.py",), hangs=hangs
    )
    return judged(mutant, commands or [COMMAND], runs.made, runs.without)


@pytest.mark.parametrize(
    ("ran", "sign"),
    [
        (PASSED, Sign.PASSED),
        (FAILED, Sign.FAILED),
        (AWAY, Sign.DOUBTED),
        (ERRED, Sign.DOUBTED),
        (LATE, Sign.LATE),
        (ENDLESS, Sign.ENDLESS),
        (UNREADABLE, Sign.UNTESTED),
        (CRASHED, Sign.UNTESTED),
    ],
)
def test_how_a_run_ended_is_read(ran: Ran, sign: Sign) -> None:
    assert read(*ran)[0] is sign


def test_given_a_failed_test_then_it_is_killed_by_one_run() -> None:
    runs = Runs(FAILED)
    assert judge(runs)[0] is Result.KILLED
    assert runs.asked == [(COMMAND, True)]


@pytest.mark.parametrize("ran", [ERRED, AWAY])
def test_given_an_error_when_it_is_the_mutants_then_it_is_killed(ran: Ran) -> None:
    """A fixture that migrates may be how it shows: without it all is well, and with it the same again."""
    runs = Runs(ran, PASSED, ran)
    assert judge(runs) == (Result.KILLED, TEST)
    assert runs.asked == [(COMMAND, True), (NARROWED, False), (COMMAND, True)]


@pytest.mark.parametrize("ran", [ERRED, AWAY, LATE])
@pytest.mark.parametrize("without", [ERRED, AWAY, LATE, FAILED, ENDLESS, CRASHED])
def test_given_an_error_or_a_limit_when_it_is_there_without_the_mutant_then_it_is_no_kill(
    ran: Ran, without: Ran
) -> None:
    result, by = judge(Runs(ran, without))
    assert result is Result.UNCLEAR
    assert by.startswith(f"{TEST}: without the mutant as well: ")


@pytest.mark.parametrize("ran", [ERRED, AWAY])
@pytest.mark.parametrize(
    ("again", "result"),
    [
        (FAILED, Result.KILLED),
        (OTHER, Result.UNCLEAR),
        (ENDLESS, Result.UNCLEAR),
        (UNREADABLE, Result.BROKEN),
    ],
)
def test_given_an_error_when_it_does_not_come_again_then_what_comes_counts(
    ran: Ran, again: Ran, result: Result
) -> None:
    assert judge(Runs(ran, PASSED, again))[0] is result


def test_given_an_error_that_does_not_come_again_then_the_next_tests_are_run() -> None:
    runs = Runs(ERRED, PASSED, PASSED, PASSED)
    assert judge(runs, COMMAND, ["tests/c.py"]) == (Result.SURVIVED, "")
    assert runs.asked[-1] == (["tests/c.py"], True)


def test_given_a_limit_when_the_test_passes_without_the_mutant_then_it_is_killed_by_two_runs() -> None:
    runs = Runs(LATE, PASSED)
    assert judge(runs) == (Result.KILLED, TEST)
    assert len(runs.asked) == 2


def test_given_a_hang_when_it_is_how_the_mutant_shows_then_its_tests_must_end_without_it() -> None:
    for answers, result in ([ENDLESS, PASSED], Result.HUNG), ([ENDLESS, ENDLESS], Result.UNCLEAR):
        assert judge(Runs(*answers), hangs=True)[0] is result
    assert judge(Runs(ENDLESS))[0] is Result.HUNG
