"""How each client stands at the end: its credits, its tasks, its rows in the log, its units at Stripe. Pure.

The largest clients have a line each, the others one together, and the sums are of all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import rich.box
from rich.table import Table
from rich.text import Text

from billing.reconciliation.report import Finding

#: Clients that have a line of their own.
SHOWN_MAX: Final = 10


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """One client, or several together."""

    name: str
    granted: int = 0
    spent: int = 0
    held: int = 0
    available: int = 0
    succeeded: int = 0
    rejected: int = 0
    failed: int = 0
    usage_rows: int = 0
    stripe_units: int = 0


_NUMBERS: Final = tuple(field.name for field in dataclasses.fields(Standing) if field.name != "name")
#: Narrow enough for 80 characters.
_HEADS: Final = (
    "granted",
    "spent",
    "held",
    "avail-\nable",
    "suc-\nceeded",
    "re-\njected",
    "failed",
    "usage\nrows",
    "Stripe\nunits",
)


def total(standings: Iterable[Standing], name: str = "all") -> Standing:
    """Add standings up."""
    sums = dict.fromkeys(_NUMBERS, 0)
    for standing in standings:
        for number in _NUMBERS:
            sums[number] += getattr(standing, number)
    return Standing(name=name, **sums)


def largest(standings: Sequence[Standing], shown: int = SHOWN_MAX) -> list[Standing]:
    """Return those that spent most, and the others as one, where there are more than `shown`."""
    if len(standings) <= shown:
        return list(standings)
    ordered = sorted(standings, key=lambda standing: (-standing.spent, standing.name))
    others = ordered[shown:]
    return [*ordered[:shown], total(others, f"{len(others):,} others")]


def clients_table(standings: Sequence[Standing]) -> Table:
    """Return one row per client and one of sums; money first, then tasks, then the log, then Stripe."""
    table = Table(box=rich.box.SIMPLE_HEAD, show_footer=True, pad_edge=False, padding=0)
    sums = total(standings)
    table.add_column("client", footer=sums.name, overflow="fold")
    for name, head in zip(_NUMBERS, _HEADS, strict=True):
        table.add_column(head, footer=f"{getattr(sums, name):,}", justify="right", no_wrap=True)
    for standing in standings:
        # As text: a client's name may look like markup.
        table.add_row(Text(standing.name), *(f"{getattr(standing, name):,}" for name in _NUMBERS))
    return table


def laws_table(findings: Iterable[Finding]) -> Table:
    """Return one row per finding: the law, whether it holds, and what was compared or what differs."""
    table = Table(box=None, show_header=False, pad_edge=False)
    for _ in range(3):
        table.add_column()
    for found in findings:
        verdict = Text("holds", "green") if found.holds else Text("BROKEN", "bold red")
        table.add_row(Text(found.law), verdict, Text(found.text))
    return table


def summary(findings: Sequence[Finding], accounted: str) -> str:
    """Return the last line: what it all comes to."""
    broken = [found.law for found in findings if not found.holds]
    return f"does not hold: {', '.join(broken)}" if broken else f"all laws hold; {accounted}"


def as_json(standings: Iterable[Standing]) -> list[Mapping[str, object]]:
    """Return standings as JSON has them."""
    return [dataclasses.asdict(standing) for standing in standings]
