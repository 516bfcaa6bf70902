"""Every cell of the matrix, by theme, in the order of the document."""

from __future__ import annotations

from typing import Final

from tests.endings.cell import Cell
from tests.endings.theme import Theme
from tests.endings.themes import (
    amounts,
    bodies,
    callers,
    canvas,
    deaths,
    deliveries,
    limits,
    retries,
    revocations,
    shutdowns,
)

THEMES: Final[tuple[Theme, ...]] = (
    bodies.THEME,
    amounts.THEME,
    retries.THEME,
    limits.THEME,
    deaths.THEME,
    revocations.THEME,
    shutdowns.THEME,
    deliveries.THEME,
    canvas.THEME,
    callers.THEME,
)
CELLS: Final[tuple[Cell, ...]] = tuple(cell for theme in THEMES for cell in theme.cells)
