"""Options that say which usage is meant: `--from`, `--to`, `--correlation`, `--root`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from billing.cli.amount import INSTANT

F = TypeVar("F", bound=Callable[..., Any])


def selecting(command: F) -> F:
    """Add the options, as `start`, `end`, `correlation_id` and `root_id`."""
    for option in (
        click.option("--root", "root_id", default=None, help="Only of a workflow: this task and all it started."),
        click.option("--correlation", "correlation_id", default=None, help="Only of the task with this id."),
        click.option("--to", "end", type=INSTANT, default=None, help="The instant after the last."),
        click.option("--from", "start", type=INSTANT, default=None, help="The first instant (UTC without a zone)."),
    ):
        command = option(command)
    return command
