"""A receipt's file is there whole or not at all, and nothing that is no file is ever replaced."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from billing.core.errors import InvalidValue
from billing.receipts.files import whole_file


def test_text_that_breaks_off_leaves_the_older_file_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "receipt.csv"
    with whole_file(path) as file:
        file.write("older")
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(f"half {1 // 0}")
    assert path.read_text() == "older"
    assert list(path.parent.iterdir()) == [path]


def test_a_newer_receipt_replaces_the_older_one(tmp_path: Path) -> None:
    for text in ("older", "newer"):
        with whole_file(tmp_path / "receipt.csv") as file:
            file.write(text)
    assert (tmp_path / "receipt.csv").read_text() == "newer"


def test_a_link_stays_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "receipt")
    with whole_file(tmp_path / "link") as file:
        file.write("text")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "receipt").read_text() == "text"


@pytest.mark.parametrize("name", ["", "/dev/null", "receipt\0", "x" * 300, "file/below"])
def test_a_place_where_no_file_can_be_is_refused(tmp_path: Path, name: str) -> None:
    """Given a directory, a device, a bad name: one line that says so, and it is what it was."""
    (tmp_path / "file").write_text("text")
    with pytest.raises(InvalidValue, match=r"^output: ") as refused, whole_file(tmp_path / name) as file:
        file.write("text")
    assert len(str(refused.value).splitlines()) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert Path("/dev/null").is_char_device()


def test_a_pipe_is_refused_and_stays(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InvalidValue, match="not of a directory or a device"), whole_file(tmp_path / "pipe"):
        pass
    assert (tmp_path / "pipe").is_fifo()
