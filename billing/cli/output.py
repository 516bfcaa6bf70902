"""What a command prints: a table for people, JSON with `--json` for programs. Never both, never half of one."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from enum import Enum
from typing import Any, Final, TypeVar
from uuid import UUID

import click

_PIPE_WIDTH: Final = 120

F = TypeVar("F", bound=Callable[..., Any])

json_option: Callable[[F], F] = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def emit_json(value: Any) -> None:
    """Print a value as JSON."""
    click.echo(json.dumps(value, default=_plain, indent=2))


def table(
    title: str | None,
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    numbers: int = 0,
    nothing: str | None = None,
) -> None:
    """Print a table; the last `numbers` columns are numbers, aligned to the right. Without rows: `nothing`."""
    rows = list(rows)
    if nothing is not None and not rows:
        click.echo(nothing)
        return
    import rich.console  # noqa: PLC0415 - rich is slow to import and not needed for JSON
    import rich.table  # noqa: PLC0415
    import rich.text  # noqa: PLC0415

    # All as text: a client's name may look like markup, or like the name of an emoji.
    made = rich.table.Table(
        title=None if title is None else rich.text.Text(title), title_justify="left", box=rich.box.SIMPLE_HEAD
    )
    for position, column in enumerate(columns):
        is_number = position >= len(columns) - numbers
        made.add_column(column, justify="right" if is_number else "left", overflow="fold", no_wrap=is_number)
    for row in rows:
        made.add_row(*(rich.text.Text(_cell(value)) for value in row))
    console = rich.console.Console()
    # A pipe has no width: wide enough for one line a row.
    width = None if console.is_terminal else _PIPE_WIDTH
    rich.console.Console(width=width).print(made)


def _cell(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, datetime):
        return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")
    return "" if value is None else str(value)


def _plain(value: object) -> object:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Mapping):
        return dict(value)
    message = f"{type(value).__name__} has no JSON form"
    raise TypeError(message)
