"""What is charged when a run records what it used, and what a client cannot pay."""

from __future__ import annotations

from typing import Final

from tests.endings.cell import Cell, Expected, Hold, nothing
from tests.endings.theme import Theme
from tests.endings.themes.simple import sends

THEME: Final = Theme(
    title="Amounts",
    cells=(
        Cell(
            key="less-than-held",
            ending="records less than was held",
            drive=sends("metered", 5, 2),
            expect=Expected(rows=(20,)),
        ),
        Cell(
            key="more-than-held",
            ending="records more than was held",
            drive=sends("metered", 1, 4),
            expect=Expected(rows=(40,)),
            quick=True,
        ),
        Cell(
            key="more-than-there-is",
            ending="records more than the client has: the rest is owed",
            drive=sends("metered", 1, 5),
            expect=Expected(rows=(50,), owed=20),
            grant=30,
        ),
        Cell(
            key="zero-usage",
            ending="records nothing used",
            drive=sends("metered", 5, 0),
            expect=Expected(rows=(0,)),
        ),
        Cell(
            key="two-skus",
            ending="records on two SKUs: one event, one row for each",
            drive=sends("lines", 3),
            expect=Expected(rows=(9, 10)),
            core=True,
        ),
        Cell(
            key="recorded-then-failed",
            ending="records, then raises",
            drive=sends("records_and_fails"),
            expect=nothing("FAILURE: ValueError", "FAILURE"),
        ),
        Cell(
            key="insufficient",
            ending="the client cannot pay",
            drive=sends("one"),
            expect=nothing("FAILURE: InsufficientCredits", "FAILURE", Hold.NEVER),
            grant=5,
            core=True,
            quick=True,
        ),
    ),
)
