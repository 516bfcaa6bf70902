"""The record is the limit: more fails, less asks to be recorded, what is new or gone is named; each has its reason."""

from __future__ import annotations

import pytest

from tests.cost.records import Figure, compared, read, written

TEXT = """# what it costs

[task.charged]
why = "a reason"
commands = 3
inside = "get 2, set 1"

[memory.bucket.8]
why = "rounded"
within = 4
bytes = 100
"""


@pytest.mark.parametrize(
    ("figure", "complaint"),
    [
        (3, None),
        (4, "task.charged: commands: costs 4, more than the recorded 3"),
        (2, "task.charged: commands: costs 2, recorded is 3; record it: make costs ARGS=--record"),
    ],
)
def test_a_record_is_a_limit_both_ways(figure: int, complaint: str | None) -> None:
    rows = compared(read(TEXT), {"task.charged": {"commands": figure, "inside": "get 2, set 1"}})
    assert [row.complaint for row in rows] == [complaint, None]


@pytest.mark.parametrize(
    ("figure", "words"),
    [
        ("get 3, set 1", "more than the recorded get 2, set 1"),
        ("get 2", "record it"),
        ("get 1, set 2", "record it"),
        ("get 12", "more than"),
    ],
)
def test_commands_by_name_are_held_to_their_sum_and_to_their_names(figure: Figure, words: str) -> None:
    rows = compared(read(TEXT), {"task.charged": {"commands": 3, "inside": figure}})
    (complaint,) = [row.complaint for row in rows if row.complaint]
    assert words in complaint


def test_what_is_not_quite_exact_differs_within_what_is_written() -> None:
    said = [compared(read(TEXT), {"memory.bucket.8": {"bytes": figure}})[0].complaint for figure in (96, 104, 95, 105)]
    assert said[:2] == [None, None]
    assert None not in said[2:]


def test_a_figure_that_is_new_or_gone_is_named() -> None:
    rows = compared(read(TEXT), {"task.charged": {"inside": "get 2, set 1", "bytes": 7}, "other": {"frames": 1}})
    said = [row.complaint or "" for row in rows]
    assert [line.split("; ")[0] for line in said if line] == [
        "task.charged: commands: 3 is recorded, and nothing is counted any more",
        "task.charged: bytes: 7 is not recorded",
        "other: frames: 1 is not recorded",
    ]


def test_what_is_recorded_anew_keeps_every_reason_and_asks_for_those_that_are_missing() -> None:
    text = written(TEXT, {"task.charged": {"commands": 2, "inside": "get 1", "bytes": 7}, "other.1": {"frames": 1}})
    assert text == (
        TEXT.replace("commands = 3", "commands = 2").replace('"get 2, set 1"', '"get 1"\nbytes = 7')
        + '\n[other.1]\nwhy = "TODO: say why"\nframes = 1\n'
    )
    with pytest.raises(AssertionError, match="no reason is given"):
        read("[task]\ncommands = 1\n")
    with pytest.raises(AssertionError, match="no reason is given"):
        read(text)
