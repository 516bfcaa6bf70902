"""Every command, as its own `--help` tells it, in the order of `billing --help`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import click

from billing.cli.main import billing

_WIDTH: Final = 110


def commands() -> str:
    """Return a heading and the help of each command; those of a group follow it, one level deeper."""
    return "\n\n".join(
        f"{'#' * min(2 + depth, 4)} {path}\n\n```text\n{text}\n```" for path, depth, text in each(billing, "billing")
    )


def each(command: click.Command, path: str, parent: click.Context | None = None) -> Iterator[tuple[str, int, str]]:
    """Yield a command and those below it: how it is typed, how deep it is, and its help."""
    context = click.Context(
        command, parent, info_name=path.rpartition(" ")[2], terminal_width=_WIDTH, **command.context_settings
    )
    yield path, path.count(" "), command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            below = command.get_command(context, name)
            if below is not None and not below.hidden:
                yield from each(below, f"{path} {name}", context)
