"""The recorded figures of `recorded.toml`, and what is said where a figure of today differs. Pure.

A record is a limit: what costs more fails. What costs less fails too, and asks to be recorded, so that it stays so.
A figure is a number, or the names of commands with their numbers ("mget 1, zadd 1"), whose sum counts.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

RECORDED: Final = Path(__file__).with_name("recorded.toml")
#: What a table has beside its figures: the reason, and by how much a figure may differ that is not quite exact.
REASON: Final = "why"
WITHIN: Final = "within"
_UNSAID: Final = "TODO"

Figure = int | str
#: The figures of today: table → name → figure.
Found = Mapping[str, Mapping[str, Figure]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A figure as it is recorded and as it is now; None where there is none."""

    table: str
    name: str
    recorded: Figure | None
    now: Figure | None
    within: int = 0

    @property
    def complaint(self) -> str | None:
        """What is wrong; None: nothing is."""
        place = f"{self.table}: {self.name}"
        if self.now is None:
            return f"{place}: {self.recorded} is recorded, and nothing is counted any more; take it out"
        if self.recorded is None:
            return f"{place}: {self.now} is not recorded; record it: make costs ARGS=--record, and say why"
        recorded, now = total(self.recorded), total(self.now)
        if now > recorded + self.within:
            return f"{place}: costs {self.now}, more than the recorded {self.recorded}"
        if now < recorded - self.within or (now == recorded and self.now != self.recorded):
            return f"{place}: costs {self.now}, recorded is {self.recorded}; record it: make costs ARGS=--record"
        return None


def total(figure: Figure) -> int:
    """Return what a figure comes to."""
    return figure if isinstance(figure, int) else sum(map(int, re.findall(r"\d+(?=,|$)", figure)))


def read(text: str) -> dict[str, dict[str, Any]]:
    """Return the tables by their names; each has its reason."""
    tables = dict(_tables("", tomllib.loads(text)))
    missing = [name for name, table in tables.items() if not table.get(REASON) or table[REASON].startswith(_UNSAID)]
    assert not missing, f"recorded.toml: no reason is given for {missing}"
    return tables


def _tables(name: str, given: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    own = {key: value for key, value in given.items() if not isinstance(value, dict)}
    if own:
        yield name, own
    for key, value in given.items():
        if isinstance(value, dict):
            yield from _tables(f"{name}.{key}" if name else key, value)


def compared(recorded: Mapping[str, Mapping[str, Any]], found: Found) -> list[Row]:
    """Return a row for each figure that is recorded in the tables of `found`, or counted."""
    rows = []
    for table, figures in found.items():
        own = recorded.get(table, {})
        names = dict.fromkeys([*(name for name in own if name not in (REASON, WITHIN)), *figures])
        within = own.get(WITHIN, 0)
        rows += [
            Row(table=table, name=name, recorded=own.get(name), now=figures.get(name), within=within) for name in names
        ]
    return rows


def written(text: str, found: Found) -> str:
    """Return the file's text with today's figures in their lines; a new table, or a new figure, comes at its end."""
    recorded, lines, table = read(text), text.splitlines(), ""
    for number, line in enumerate(lines):
        if heading := re.fullmatch(r"\[(.+)\]", line):
            table = heading[1].replace('"', "")
        elif (figure := re.match(r"(\w+) = ", line)) and (now := found.get(table, {}).get(figure[1])) is not None:
            within = recorded[table].get(WITHIN, 0)
            if abs(total(now) - total(recorded[table][figure[1]])) > within or isinstance(now, str):
                lines[number] = f"{figure[1]} = {_toml(now)}"
    for name, figures in found.items():
        new = {key: figure for key, figure in figures.items() if key not in recorded.get(name, {})}
        if not new:
            continue
        added = [f"{key} = {_toml(figure)}" for key, figure in new.items()]
        heading_ = f"[{_heading(name)}]"
        if heading_ in lines:
            end = lines.index(heading_) + 1
            while end < len(lines) and lines[end]:
                end += 1
            lines[end:end] = added
        else:
            lines += ["", heading_, f'{REASON} = "{_UNSAID}: say why"', *added]
    return "\n".join(lines) + "\n"


def _heading(name: str) -> str:
    return ".".join(part if re.fullmatch(r"\w+", part) else f'"{part}"' for part in name.split("."))


def _toml(figure: Figure) -> str:
    return str(figure) if isinstance(figure, int) else f'"{figure}"'
