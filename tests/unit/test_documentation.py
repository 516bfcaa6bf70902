"""The documentation is built without a warning, has all that the code has, and asks nobody for anything."""

from __future__ import annotations

import html
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest
from sphinx.errors import ExtensionError

import billing
from billing import admin
from billing.cli.main import billing as command_line
from billing.core.settings import FIELDS
from billing.events.usage_event import GrantShare, PaidLine, UsageEvent
from billing.integration.schedule import build_schedule
from billing.observability.metrics.catalogue import CATALOGUE
from docs.made.commands import each
from docs.made.extension import MARK, PARTS, filled
from tests.documents import DOCS

ROOT: Final = DOCS.parent
#: What a browser would fetch of another host by itself; links that a reader follows are not.
_FETCHED: Final = re.compile(
    r"""<(?:script|img|link|iframe)[^>]+(?:src|href)=["'](?:https?:)?//|@import|url\(["']?http"""
)
_PICTURE: Final = re.compile(r"""<img[^>]+src=["'](?!data:)([^"']+)""")
_LINES: Final = (
    *(f"lines[].{name}" for name in PaidLine.__struct_fields__),
    *(f"lines[].grants[].{name}" for name in GrantShare.__struct_fields__),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build it as `make docs` does."""
    directory = tmp_path_factory.mktemp("docs")
    options = ("-b", "html", "-c", "docs", "-W", "--keep-going", "-n", "-q", "-E", "-d", str(directory / "trees"))
    done = subprocess.run(
        [sys.executable, "-m", "sphinx", *options, ".", str(directory / "html")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return directory / "html"


@pytest.mark.slow
def test_every_page_is_there_and_none_fetches_anything(built: Path) -> None:
    """Given the build without warnings, then each page of docs/ is in it, and none needs another host."""
    for page in DOCS.rglob("*.md"):
        assert (built / page.relative_to(ROOT)).with_suffix(".html").is_file(), page
    assert (built / "index.html").is_file()
    fetching = [path for path in built.rglob("*") if path.suffix in {".html", ".css"} and _FETCHED.search(_text(path))]
    assert fetching == []


@pytest.mark.slow
def test_every_picture_of_the_pages_is_there(built: Path) -> None:
    shown = [(page, name) for page in built.rglob("*.html") for name in _PICTURE.findall(_text(page))]
    assert shown
    assert [picture for picture in shown if not (picture[0].parent / picture[1]).is_file()] == []


@pytest.mark.slow
def test_the_reference_has_all_that_the_code_has(built: Path) -> None:
    """Given the built reference, then no setting, command, metric, field, entry or public name is left out."""
    expected = {
        "settings": [name for key in FIELDS for name in (f"billing_{key}", f"BILLING_{key.upper()}")],
        "commands": [f"Usage: {path} " for path, _, _ in each(command_line, "billing")],
        "metrics": [metric.name for metric in CATALOGUE],
        "events": [*UsageEvent.__struct_fields__, *_LINES, "task-billed"],
        "schedule": list(build_schedule()),
        "python": [*(f"billing.{name}" for name in billing.__all__), *(f"admin.{name}" for name in admin.__all__)],
    }
    for page, names in expected.items():
        text = html.unescape(re.sub(r"<[^>]+>", "", _text(built / "docs" / "reference" / f"{page}.html")))
        assert [name for name in names if name not in text] == [], page


def test_every_command_s_help_has_an_example() -> None:
    """Given all commands, then the help of each that does something ends with how it is typed."""
    without = [
        path for path, _, text in each(command_line, "billing") if "Example" not in text and "Commands:" not in text
    ]
    assert without == []


def test_a_part_is_made_once_and_an_unknown_one_ends_the_build() -> None:
    """Given the pages, then each part from the code is on one; given a part that nobody makes, it is refused."""
    named = [name for page in sorted(DOCS.rglob("*.md")) for name in MARK.findall(page.read_text("utf-8"))]
    assert sorted(named) == sorted(PARTS)
    with pytest.raises(ExtensionError, match="'sittings': must be one of: settings"):
        filled("<!-- from the code: sittings -->")


def _text(path: Path) -> str:
    return path.read_text("utf-8")
