"""Markdown of tables. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table; a bar within a cell stays a bar."""
    lines = [columns, ["---"] * len(columns), *rows]
    return "\n".join("| " + " | ".join(_cell(cell) for cell in line) + " |" for line in lines)


def code(value: object) -> str:
    """Return a value as code, or nothing for none."""
    return f"`{value}`" if str(value) else ""


def _cell(value: object) -> str:
    return " ".join(str(value).split()).replace("|", "\\|")
