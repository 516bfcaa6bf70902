"""The example apps run as their pages say, in a fresh directory, with the wheel and the embedded servers alone."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from billing.embedded.stack import Stack
from tests.documents import Typed
from tests.newcomer import Newcomer
from tests.wheels import ROOT

pytestmark = pytest.mark.integration

EXAMPLES = ROOT / "examples"
APPS = sorted(page.parent.name for page in EXAMPLES.glob("*/README.md"))
#: What adopting billing may change in an app: lines taken away and lines added, together.
LINES_MAX = 14


@pytest.fixture
def newcomer(
    request: pytest.FixtureRequest, stack: Stack, wheel_environment: Path, tmp_path: Path
) -> Iterator[Newcomer]:
    """Copy the examples into a fresh directory. The session's servers only say whether such are installed."""
    shutil.copytree(EXAMPLES, tmp_path / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    path = f"{wheel_environment / 'bin'}:{os.environ['PATH']}"
    newcomer = Newcomer(tmp_path / "examples" / request.param, {"PATH": path, "COLUMNS": "160"})
    yield newcomer
    newcomer.close()


@pytest.mark.slow
@pytest.mark.parametrize(("newcomer", "app"), [(app, app) for app in APPS], indirect=["newcomer"])
def test_an_example_runs_as_its_page_says(newcomer: Newcomer, app: str) -> None:
    newcomer.follow(EXAMPLES / app / "README.md")


def test_the_foreign_app_adopts_billing_in_less_than_fifteen_lines() -> None:
    """Given the app before and after, then these few lines differ, and they are what its page shows."""
    before, after = ((EXAMPLES / "foreign_app" / when / "gallery.py").read_text() for when in ("before", "after"))
    found = difflib.unified_diff(before.splitlines(), after.splitlines(), n=0)
    changed = [line for line in found if re.match(r"[+-](?![+-]{2})", line)]
    assert 0 < len(changed) <= LINES_MAX, changed
    page = (EXAMPLES / "foreign_app" / "README.md").read_text()
    assert [line for line in changed if line not in page.splitlines()] == []
    assert "billing" not in before


def test_the_examples_are_listed() -> None:
    page = (EXAMPLES / "README.md").read_text()
    listed = sorted(re.findall(r"\]\((\w+)/README\.md\)", page))
    assert listed == APPS == ["django_style", "foreign_app", "webhook_receiver"]


@pytest.mark.parametrize(
    ("says", "prints", "is_so"),
    [
        ("a …, c\n", "a b, c\n", True),
        ("a …, c\n", "a b, d\n", False),
        ("…\nend\n", "one\ntwo\nend\n", True),
        ("…\nend\n", "one\nend\ntwo\n", False),
        ("a.c\n", "abc\n", False),
        ("  one   \n", "\n  one\n\n", True),
        ("", "something\n", False),
    ],
)
def test_a_page_is_compared_line_by_line(says: str, prints: str, is_so: bool) -> None:  # noqa: FBT001 - a table's column
    assert Typed(command="", output=says).is_printed(prints) is is_so
