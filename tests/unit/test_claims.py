"""The page of claims says what its data say, and each command that it names is one that a stranger can type."""

from __future__ import annotations

import copy
import datetime as dt
import re
import tomllib
from pathlib import Path
from typing import Any, Final

import pytest

from tests.claims.page import DATA, PAGE, page

ROOT: Final = Path(__file__).parents[2]
CLAIMS: Final[dict[str, Any]] = tomllib.loads(DATA.read_text("utf-8"))
#: A result, whatever the real ones are.
LAST: Final = {"date": dt.date(2026, 1, 2), "commit": "abc", "machine": "quiet", "held": True, "result": "9 of 9"}
TARGETS: Final = set(re.findall(r"^([a-z0-9-]+):.*##", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))


def test_the_page_is_made_from_its_data() -> None:
    """Where it differs: `.venv/bin/python -m tests.claims` writes it."""
    assert PAGE.read_text("utf-8") == page(CLAIMS)


def test_every_law_is_claimed() -> None:
    assert {claim["law"] for claim in CLAIMS["claim"]} >= {f"L{number}" for number in range(1, 11)}


def test_each_command_is_a_target_that_is_there() -> None:
    for name, proof in CLAIMS["proof"].items():
        command = proof["command"]
        if not command.startswith("by hand"):
            assert command.startswith("make "), name
            assert command.split()[1] in TARGETS, name
            assert _finds_tests(command), name
        for path in re.findall(r"\]\(([^)]+)\)", proof["what"]):
            assert (DATA.parent / path).exists(), (name, path)


def _finds_tests(command: str) -> bool:
    """Whether what `make test` is given is there: the files, or tests that have one of the words in their names."""
    if "-k" not in command:
        return all((ROOT / path).is_file() for path in re.findall(r"tests/[\w/]+\.py", command))
    words = set(re.findall(r"\w+", command.partition("-k")[2])) - {"or"}
    names = [
        name for path in (ROOT / "tests").rglob("test_*.py") for name in re.findall(r"def (test_\w+)", _text(path))
    ]
    return any(word in name for word in words for name in names)


def _text(path: Path) -> str:
    return path.read_text("utf-8")


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"commit": ""}, "commit: '': must be a str"),
        ({"date": "yesterday"}, "date: 'yesterday': must be a date"),
        ({"machine": "mine"}, "machine: 'mine': must be one of"),
        ({"held": "mostly"}, "held: 'mostly': must be a bool"),
    ],
)
def test_a_result_that_says_too_little_is_refused(changes: dict[str, object], complaint: str) -> None:
    data = copy.deepcopy(CLAIMS)
    data["proof"]["kills"]["last"].update(changes)
    with pytest.raises(ValueError, match=re.escape(complaint)):
        page(data)


def test_what_is_claimed_without_a_proof_is_refused() -> None:
    data = copy.deepcopy(CLAIMS)
    del data["proof"]["kills"]
    with pytest.raises(ValueError, match="kills"):
        page(data)


def test_what_was_not_run_says_so_and_what_was_broken_too() -> None:
    data = copy.deepcopy(CLAIMS)
    del data["proof"]["kills"]["last"]
    data["proof"]["loss"]["last"] = {**LAST, "held": False, "size": "CLIENTS=9", "small": True}
    lines = page(data).splitlines()
    assert next(line for line in lines if "exactly once" in line).endswith("| `make kills` | not run yet |")
    (broken,) = (line for line in lines if "emptied at any moment" in line)
    assert broken.endswith("| `make loss` | **not held**, 2026-01-02, in small |")


def test_a_size_is_small_only_where_its_data_say_so() -> None:
    data = copy.deepcopy(CLAIMS)
    data["proof"]["kills"]["last"] = {**LAST, "size": "MINUTES=30"}
    (brief,) = (line for line in page(data).splitlines() if "charged exactly once, for ever" in line)
    assert brief.endswith("| `make kills` | held, 2026-01-02 |")
    assert "(MINUTES=30): held; 9 of 9" in page(data)
