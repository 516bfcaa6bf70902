"""The document of endings lists what is declared, was run, and ended as it must; else it is not written."""

from __future__ import annotations

import dataclasses

import pytest

from tests.endings.cell import Cell, Otherwise, nothing
from tests.endings.combination import BASE, all_combinations
from tests.endings.document import PATH, Incomplete, document, keys_of, what_runs
from tests.endings.record import Record
from tests.endings.theme import Theme
from tests.endings.themes import CELLS, THEMES
from tests.endings.themes.simple import sends


def made(themes: tuple[Theme, ...] = THEMES) -> list[Record]:
    """Return records of a run in which every cell ended as it must."""
    found = []
    for place in all_combinations():
        for cell in (cell for theme in themes for cell in theme.cells if cell.runs_in(place)):
            wanted = cell.expected_in(place)
            record = Record(
                place=place,
                cell=cell.key,
                rows=wanted.rows,
                hold=wanted.hold.value,
                caller=wanted.caller,
                flower=wanted.flower,
                owed=wanted.owed,
                problems=(),
            )
            found.append(record)
    return found


def test_the_document_lists_exactly_the_declared_cells_and_where_they_ran() -> None:
    """A new cell fails this until `make endings` has run it and written the document."""
    page = PATH.read_text("utf-8")

    assert keys_of(page) == [cell.key for cell in CELLS]
    assert what_runs(CELLS) in page


def test_the_document_is_what_the_declared_ends_come_to() -> None:
    """Each cell ended as declared when it was written: a declaration that was changed since is not in it."""
    assert PATH.read_text("utf-8") == document(THEMES, made())


def test_keys_are_unique_and_there_are_more_than_forty() -> None:
    assert len({cell.key for cell in CELLS}) == len(CELLS) >= 40


def test_a_cell_that_was_not_run_is_refused() -> None:
    for left_out in (0, 100, -1):
        records = made()
        del records[left_out]
        with pytest.raises(Incomplete, match="was not run"):
            document(THEMES, records)


def test_a_cell_that_did_not_end_as_it_must_is_refused() -> None:
    first, *others = made()
    broken = dataclasses.replace(first, problems=("rows: () instead of (10,)",))

    with pytest.raises(Incomplete, match="success: rows"):
        document(THEMES, [broken, *others])


def test_what_differs_and_what_cannot_be_stands_in_the_notes() -> None:
    """Given a cell that ends otherwise on two pools, and cannot be in a third, then both are said, with the reasons."""
    other = Otherwise(pools=["threads", "gevent"], expect=nothing("PENDING", "STARTED"), why="nobody is told")
    cell = Cell(
        key="lost",
        ending="is lost",
        drive=sends("ok"),
        expect=nothing("FAILURE: Lost", "FAILURE"),
        otherwise=[other],
        unfit={"solo": "it has nobody to lose"},
    )
    themes = (Theme(title="Losses", cells=(cell,)),)

    page = document(themes, made(themes=themes))

    line = "| `lost` | is lost [1](#notes) [2](#notes) | nothing | given back at once | `FAILURE: Lost` | `FAILURE` |"
    assert line in page
    assert (
        "1. `lost`: threads and gevent: the caller sees `PENDING`; Flower shows `STARTED` (nobody is told).\n" in page
    )
    assert "2. `lost`: cannot be in solo: it has nobody to lose.\n" in page
    assert f"| {BASE} | 1 | 0 | 0 |" in page
