"""A theme: the cells of one kind of ending, in the order of the document."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from tests.endings.cell import Cell


@dataclasses.dataclass(frozen=True, kw_only=True)
class Theme:
    """Cells that belong together."""

    title: str
    cells: Sequence[Cell]
