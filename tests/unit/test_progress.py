"""How far a reading is: said on a terminal's standard error, and nowhere else."""

from __future__ import annotations

import io
import sys
from datetime import datetime
from pathlib import Path

import pytest

from billing.admin.receipts import OpenReceipt
from billing.cli.progress import into_a_file, progress
from billing.receipts.writing import telling
from tests.receipts import HEAD, LINE


class Terminal(io.StringIO):
    """Says that it is a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_a_terminal_is_told_and_left_clean(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a terminal, then what is told is shown as it is, on a line that is erased at the end."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", shown := Terminal())
    with progress(wanted=True) as tell:
        assert tell is not None
        tell("1,000 lines of [bold]")
    assert "1,000 lines of [bold]" in shown.getvalue()
    assert shown.getvalue().rstrip().endswith("\x1b[2K")


@pytest.mark.parametrize(("terminal", "wanted"), [(True, False), (False, True)])
def test_nobody_else_is_told(monkeypatch: pytest.MonkeyPatch, terminal: bool, wanted: bool) -> None:  # noqa: FBT001 - parameters
    """Given a pipe, or a terminal where it is not wanted, then nothing is written."""
    monkeypatch.setattr(sys, "stderr", shown := (Terminal() if terminal else io.StringIO()))
    with progress(wanted=wanted) as tell:
        assert tell is None
    assert shown.getvalue() == ""


def test_output_into_a_file_is_known_from_a_pipe(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with (tmp_path / "receipt.csv").open("w") as file:
        monkeypatch.setattr(sys, "stdout", file)
        assert into_a_file()
    monkeypatch.setattr(sys, "stdout", io.StringIO())
    assert not into_a_file()


def test_a_receipt_tells_at_times_how_far_it_is() -> None:
    """Given 2,500 lines, then two times it is told how many there were, and all lines come through."""
    told: list[tuple[int, datetime]] = []
    opened = OpenReceipt(head=HEAD, lines=iter([LINE] * 2_500))
    lines = list(telling(opened, lambda count, until: told.append((count, until))).lines)
    assert len(lines) == 2_500
    assert told == [(1_000, LINE.occurred_at), (2_000, LINE.occurred_at)]
    assert telling(opened, None) is opened
