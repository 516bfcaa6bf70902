"""Writes docs/task-endings.md from the records of a full run. Pure: the same records are the same text.

It refuses records that leave out a planned cell, or in which one did not end as it must: the document has no line that
was not run. No time, date or path is in it.
"""

from __future__ import annotations

import collections
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

from tests.endings.cell import Cell
from tests.endings.combination import BASE, VERSIONS, Combination, all_combinations
from tests.endings.record import Record
from tests.endings.theme import Theme

PATH: Final = Path(__file__).parents[2] / "docs" / "task-endings.md"
_INTRODUCTION: Final = f"""\
# How a task can end, and what is charged for it

Written by `make endings`, which drives every line below on real workers, servers and processes, and changes this page
only when every cell ended as its line says. What a line shows is {BASE}; where another place
differs, a note says how. A unit of the tasks' SKU costs 10 credits, one of the second SKU 3.

* **Charged**: the credits of each row of the usage history when everything is quiet again. The balance is exact to the
  credit then, and no hold is left: **hold** says what became of what was held, and by when. "Lease + sweep" is
  `billing_lease_seconds` and the next sweep of the reaper.
* **Caller sees**: the state of the result, and the class of what `.get()` raises.
* **Flower shows**: the state that `celery.events.state.State`, which Flower keeps, has of the task in the end. On
  threads and gevent Celery 5.6 may lose events (it forgets those that come while it sends others; 5.7 mends it), and
  Flower then goes on showing an earlier state.
"""
_HEAD: Final = "| | ending | charged | hold | caller sees | Flower shows |\n|---|---|---|---|---|---|\n"


class Incomplete(Exception):
    """The records are not those of a full run in which every cell ended as it must."""


def document(themes: Sequence[Theme], records: Iterable[Record]) -> str:
    """Return the page. Raises `Incomplete`."""
    found = {(record.place, record.cell): record for record in records}
    cells = [cell for theme in themes for cell in theme.cells]
    for place, cell in itertools.product(all_combinations(), cells):
        record = found.get((place, cell.key))
        if cell.runs_in(place) and (record is None or record.problems):
            raise Incomplete(f"{place}: {cell.key}: {'; '.join(record.problems) if record else 'was not run'}")
    numbers = itertools.count(1)
    parts, notes = [_INTRODUCTION], []
    for theme in themes:
        lines = []
        for cell in theme.cells:
            marks = []
            for note in _notes(cell, found):
                notes.append(f"{(number := next(numbers))}. `{cell.key}`: {note}\n")
                marks.append(f"[{number}](#notes)")
            lines.append(_line(cell, found[BASE, cell.key], " ".join(marks)))
        parts.append(f"## {theme.title}\n\n{_HEAD}{''.join(lines)}")
    parts.append(f"## Notes\n\n{''.join(notes)}")
    parts.append(f"## What was run\n\n{what_runs(cells)}")
    return "\n".join(parts)


def what_runs(cells: Sequence[Cell]) -> str:
    """Return the table of how many cells run in each place."""
    lines = ["| place | run | cannot be there | not of the core set |\n|---|--:|--:|--:|\n"]
    for place in all_combinations():
        runs = sum(cell.runs_in(place) for cell in cells)
        planned = sum(cell.is_planned(place) for cell in cells)
        lines.append(f"| {place} | {runs} | {planned - runs} | {len(cells) - planned} |\n")
    return "".join(lines)


def keys_of(page: str) -> list[str]:
    """Return the keys of the cells that a page has a line of, in order."""
    return [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")]


def _line(cell: Cell, record: Record, marks: str) -> str:
    ending = f"{cell.ending} {marks}".strip()
    return (
        f"| `{cell.key}` | {ending} | {_charged(record)} | {record.hold} | {_said(record.caller)}"
        f" | {_said(record.flower)} |\n"
    )


def _notes(cell: Cell, found: Mapping[tuple[Combination, str], Record]) -> Iterator[str]:
    """Yield what is to be said of a cell: where it ends otherwise, where it cannot be, and what else was measured."""
    base = found[BASE, cell.key]
    different: dict[str, list[Combination]] = collections.defaultdict(list)
    for place in all_combinations():
        if cell.runs_in(place) and (record := found[place, cell.key]).seen != base.seen:
            why = next((f" ({other.why})" for other in cell.otherwise if other.holds_in(place)), "")
            different[_difference(base, record) + why].append(place)
    for text, places in different.items():
        yield f"{_named(places)}: {text}."
    reasons: dict[str, list[str]] = collections.defaultdict(list)
    for pool, reason in cell.unfit.items():
        reasons[reason].append(pool)
    for reason, pools in reasons.items():
        yield f"cannot be in {_listed(pools)}: {reason}."
    if cell.remark:
        yield f"{cell.remark}."


def _difference(base: Record, record: Record) -> str:
    said = []
    if (record.rows, record.owed) != (base.rows, base.owed):
        said.append(f"charged {_charged(record)}")
    if record.hold != base.hold:
        said.append(f"hold {record.hold}")
    if record.caller != base.caller:
        said.append(f"the caller sees {_said(record.caller)}")
    if record.flower != base.flower:
        said.append(f"Flower shows {_said(record.flower)}")
    return "; ".join(said)


def _named(places: Sequence[Combination]) -> str:
    """Return places in few words: versions only where they differ."""
    labels = {
        version: [
            place.pool if place.broker == BASE.broker else "Redis transport"
            for place in places
            if place.version == version
        ]
        for version in VERSIONS
    }
    if len({tuple(names) for names in labels.values()}) == 1:
        return _listed(next(iter(labels.values())))
    return "; ".join(f"Celery {version} on {_listed(names)}" for version, names in labels.items() if names)


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _charged(record: Record) -> str:
    if not record.rows:
        return "nothing"
    counted = collections.Counter(record.rows).items()
    text = " + ".join(str(credits_) if count == 1 else f"{count} x {credits_}" for credits_, count in counted)
    return f"{text}, {record.owed} of them owed" if record.owed else text


def _said(states: str) -> str:
    """Return the states of a result, or of a task, as code where they are Celery's own."""
    return ", ".join(f"`{state}`" if state.partition(":")[0].isupper() else state for state in states.split(", "))
