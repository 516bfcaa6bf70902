"""Completion in a shell: the script that a shell reads, and the clients that a word may become.

What completes a word may never fail or wait for long: without an answer in a second there is nothing to offer.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click
from click.shell_completion import get_completion_class

from billing.core.errors import InvalidValue

#: Clients that are offered at most, and how long PostgreSQL may take to name them (L9).
OFFERED_MAX: Final = 50
WAIT_SECONDS: Final = 1.0
SHELLS: Final = ("bash", "zsh", "fish")
VARIABLE: Final = "_BILLING_COMPLETE"

F = TypeVar("F", bound=Callable[..., Any])


def clients(ctx: click.Context, _param: click.Parameter, incomplete: str) -> list[str]:
    """Return the clients whose ids begin with what is there of the word."""
    # Only a completion needs these, and it may fail: a word that nobody completes is typed by hand.
    from billing.catalog import clients as catalog  # noqa: PLC0415
    from billing.cli.context import settings  # noqa: PLC0415
    from billing.connections import postgres  # noqa: PLC0415

    try:
        with ctx.scope():
            found = dataclasses.replace(settings(), database_timeout_seconds=WAIT_SECONDS)
        engine = postgres.engine(found)
        try:
            with postgres.reaching(found), engine.connect() as connection:
                page = catalog.beginning_with(connection, incomplete, limit=OFFERED_MAX)
        finally:
            engine.dispose()
    except Exception:  # noqa: BLE001 - whatever it is, it has no place in a half-typed line
        return []
    return [found.client_id for found in page]


#: The client that a command is about.
client_argument: Callable[[F], F] = click.argument("client_id", metavar="CLIENT", shell_complete=clients)


@click.command(epilog='Example: billing completion bash; then in ~/.bashrc: eval "$(billing completion bash)"')
@click.argument("shell", type=click.Choice(SHELLS))
def completion(shell: str) -> None:
    """Print what SHELL reads to complete commands, options and clients."""
    made = get_completion_class(shell)
    if made is None:  # click has them all; another one may be registered away
        raise InvalidValue("shell", shell, "is none that this version of click completes for")
    # Of the group it needs nothing but the name that is typed.
    click.echo(made(click.Group("billing"), {}, "billing", VARIABLE).source())
