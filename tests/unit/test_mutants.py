"""The catalogue of mutants is honest: each fault can still be made, its tests exist, and no law is without any."""

from __future__ import annotations

import collections
import dataclasses
from pathlib import Path

import pytest

from tests.mutants import report
from tests.mutants.catalogue import LAWS, ROOMS
from tests.mutants.mutant import Broken, Mutant, Outcome, Result
from tests.mutants.workbench import grouped

ROOT = Path(__file__).parents[2]
MUTANTS = [mutant for mutants in ROOMS.values() for mutant in mutants]
ONE = Mutant(
    name="an off by one", laws="L1", file="a.py", text="a < b", becomes="a <= b", tests=("tests/unit/test_mutants.py",)
)


def test_each_mutant_can_be_made_and_its_tests_exist() -> None:
    """Given the code as it is, then the text of each mutant stands in its file once: a moved line is no silent pass."""
    for mutant in MUTANTS:
        mutant.check(ROOT)
        assert mutant.text != mutant.becomes
        assert mutant.tests


def test_no_two_mutants_have_one_name_and_none_is_another() -> None:
    for room, mutants in ROOMS.items():
        names = collections.Counter(mutant.name for mutant in mutants)
        assert max(names.values()) == 1, room
    made = collections.Counter((mutant.file, mutant.text, mutant.becomes) for mutant in MUTANTS)
    assert [key for key, count in made.items() if count > 1] == []


def test_each_law_has_mutants() -> None:
    of_law = collections.Counter(law for mutant in MUTANTS for law in mutant.laws.split())
    assert set(of_law) == set(LAWS)
    assert min(of_law.values()) >= 5


def test_given_a_text_that_moved_then_the_mutant_is_named() -> None:
    for source in ("a <= b", "a < b or a < b"):
        with pytest.raises(Broken, match=r"'an off by one': its text stands [02] times in a\.py"):
            ONE.applied_to(source)
    assert ONE.applied_to("if a < b:") == "if a <= b:"


def test_given_a_file_or_a_test_that_is_not_there_then_the_mutant_is_named(tmp_path: Path) -> None:
    with pytest.raises(Broken, match=r"'an off by one': there is no a\.py"):
        ONE.check(tmp_path)
    (tmp_path / "a.py").write_text("a < b\n")
    with pytest.raises(Broken, match=r"'an off by one': there is no tests/unit/test_mutants\.py"):
        ONE.check(tmp_path)
    mutant = dataclasses.replace(ONE, tests=("a.py::test_nothing",))
    with pytest.raises(Broken, match=r"'an off by one': a\.py has no test_nothing"):
        mutant.check(tmp_path)


def test_selections_with_the_same_words_are_one_command() -> None:
    given = ["tests/a.py -k valkey", "tests/b.py::test_b", "tests/c.py -k valkey"]
    assert grouped(given) == [["tests/a.py", "tests/c.py", "-k", "valkey"], ["tests/b.py::test_b"]]


def outcome(result: Result, *, explained: str = "", hangs: bool = False) -> Outcome:
    mutant = dataclasses.replace(ONE, explained=explained, hangs=hangs)
    return Outcome(mutant=mutant, room="room", result=result, seconds=1.0)


def test_the_report_counts_and_judges() -> None:
    """A survivor needs an explanation, a broken mutant is none, and one that hangs counts only where it is to."""
    killed = [outcome(Result.KILLED)] * 19
    assert report.holds([*killed, outcome(Result.SURVIVED, explained="it is harmless")])
    assert report.holds([*killed, outcome(Result.HUNG, hangs=True)])
    assert not report.holds([*killed, outcome(Result.SURVIVED)])
    assert not report.holds([*killed, outcome(Result.HUNG)])
    assert not report.holds([*killed, outcome(Result.BROKEN, explained="it does not import")])
    assert not report.holds([*killed, outcome(Result.UNCLEAR, explained="it is harmless")])
    assert not report.holds([*killed[:18], *[outcome(Result.SURVIVED, explained="it is harmless")] * 2])
    text = report.text([*killed, outcome(Result.SURVIVED)])
    assert "room       20      19         1" in text
    assert "19 of 20 mutants killed: 95.0 % (at least 95 %)" in text
    assert "survived: room: an off by one (a.py): NOT EXPLAINED" in text
