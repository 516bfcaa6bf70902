"""The page about `BillableTask`: its app and the test of it run as they are printed, and no option is left out."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from billing.task.definition import OPTIONS
from billing.task.overrides import KEYWORDS
from tests.documents import DOCS, blocks

PAGE = "billable-task.md"
ROOT = Path(__file__).parents[2]


def test_the_examples_run_as_they_are_printed(tmp_path: Path) -> None:
    """Given the page's blocks as files, when pytest runs there, then each example does what it says."""
    files = blocks(PAGE)
    assert list(files) == ["shop.py", "test_shop.py"]
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert "3 passed" in done.stdout


def test_every_option_and_every_word_of_a_call_is_on_the_page() -> None:
    """Given the options that a task may have, and the keywords that a call may, then the page has a row for each."""
    rows = [
        line.split("|")[1].strip() for line in (DOCS / PAGE).read_text("utf-8").splitlines() if line.startswith("| `")
    ]

    assert {f"`{name}`" for name in (*OPTIONS, *KEYWORDS)} == set(rows)
