"""`billing parked list|cancel`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from billing import admin
from billing.cli.amount import CREDITS, NEGATIVE_NUMBERS
from billing.cli.completing import clients
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table
from billing.parking.parked import ParkedRow

_COLUMNS: Final = ("id", "client", "task", "parked (UTC)", "until (UTC)", "SKU", "credits")


@click.group(epilog="Example: billing parked list --client acme")
def parked() -> None:
    """Tasks that wait until their client has the credits for them."""


@parked.command(name="list", epilog="Example: billing parked list --client acme")
@click.option("--client", default=None, shell_complete=clients, help="Only this client's.")
@click.option("--after", type=CREDITS, default=None, help="Go on after this id.")
@json_option
def list_(client: str | None, after: int | None, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """List the tasks that wait, in the order of parking."""
    found = admin.parked(settings(), client_id=client, after=after or 0)
    if as_json:
        emit_json(found)
        return
    table(None, _COLUMNS, [_cells(row) for row in found], numbers=1, nothing="no parked tasks")
    if len(found) == admin.PARKED_SHOWN_MAX:
        click.echo(f"there may be more: billing parked list --after {found[-1].parked_id}")


@parked.command(context_settings=NEGATIVE_NUMBERS, epilog="Example: billing parked cancel --client acme")
@click.argument("parked_id", metavar="[ID]", type=CREDITS, required=False)
@click.option("--client", default=None, shell_complete=clients, help="All that this client has waiting.")
@json_option
def cancel(parked_id: int | None, client: str | None, as_json: bool) -> None:  # noqa: FBT001
    """Cancel a task, or all of a client: its caller is told so, and it never runs."""
    ended: Sequence[ParkedRow] = admin.cancel_parked(settings(), parked_id=parked_id, client_id=client)
    if as_json:
        emit_json(ended)
        return
    for row in ended:
        click.echo(f"parked task {row.parked_id} of {row.client_id} ({row.task}, {row.task_id}) is cancelled")
    if not ended:
        click.echo(f"client {client} has no parked tasks")


def _cells(row: ParkedRow) -> tuple[object, ...]:
    return (str(row.parked_id), row.client_id, row.task, row.parked_at, row.expires_at, row.sku, row.credits)
