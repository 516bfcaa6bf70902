"""What a run of the matrix leaves: one record per cell and place, as JSON holds it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, Self

from tests.endings.cell import EITHER
from tests.endings.combination import Combination
from tests.endings.harness import Outcome


@dataclasses.dataclass(frozen=True, kw_only=True)
class Record:
    """How a cell ended in a place."""

    place: Combination
    cell: str
    rows: tuple[int, ...]
    hold: str
    caller: str
    flower: str
    owed: int
    problems: tuple[str, ...]

    @property
    def seen(self) -> tuple[tuple[int, ...], str, str, str, int]:
        """Return what two places are compared by."""
        return self.rows, self.hold, self.caller, self.flower, self.owed

    @classmethod
    def read(cls, fields: dict[str, Any]) -> Self:
        """Return the record that JSON held."""
        place = Combination(**fields["place"])
        lists = {name: tuple(fields[name]) for name in ("rows", "problems")}
        return cls(**fields | lists | {"place": place})


def records(outcomes: Iterable[tuple[Combination, Outcome]]) -> Sequence[dict[str, Any]]:
    """Return records as JSON takes them."""
    return [dataclasses.asdict(_record(place, outcome)) for place, outcome in outcomes]


def _record(place: Combination, outcome: Outcome) -> Record:
    seen = outcome.seen
    return Record(
        place=place,
        cell=outcome.cell.key,
        rows=seen.rows if seen else (),
        hold=_hold(place, outcome),
        caller=seen.caller if seen else "",
        flower=_flower(place, outcome),
        owed=seen.balance.owed if seen and seen.balance else 0,
        problems=tuple(outcome.problems),
    )


def _hold(place: Combination, outcome: Outcome) -> str:
    expect = outcome.cell.expected_in(place)
    if expect.hold in EITHER and not outcome.problems:
        # Chance has a say in what was seen, and none in the document.
        return expect.hold.value
    return outcome.seen.hold.value if outcome.seen and outcome.seen.hold else "still held"


def _flower(place: Combination, outcome: Outcome) -> str:
    if outcome.cell.may_lose_events_in(place) and not outcome.problems:
        # A lost event is said of the place, in the document's introduction, or in the cell's remark.
        return outcome.cell.expected_in(place).flower
    return outcome.seen.flower if outcome.seen else ""
