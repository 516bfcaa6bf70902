"""`billing client suspend|resume|close|overdraft`, and how a change of a client is printed."""

from __future__ import annotations

from typing import Literal

import click

from billing import admin
from billing.cli.amount import NEGATIVE_NUMBERS, PRICE
from billing.cli.completing import client_argument
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option
from billing.ledger.changes import ChangeRow


def applied_text(applied: bool) -> str:  # noqa: FBT001 - the one thing that it says
    """Say whether a bucket has what the ledger has."""
    return "is in its bucket" if applied else "is in the ledger; its bucket follows (see: billing doctor)"


def print_change(row: ChangeRow, said: str, *, applied: bool, as_json: bool) -> None:
    """Print a change."""
    if as_json:
        emit_json(
            {
                "change_id": row.change_id,
                "client_id": row.client_id,
                "kind": row.kind,
                "grant_id": row.grant_id,
                "credits": row.credits,
                "state": row.state,
                "key": row.key,
                "applied": applied,
            }
        )
    else:
        click.echo(f"{said}; it {applied_text(applied)}")


def _state_command(name: str, state: Literal["active", "suspended", "closed"], purpose: str) -> click.Command:
    @click.command(name, help=purpose, epilog=f"Example: billing client {name} acme")
    @client_argument
    @click.option("--key", default=None, help="Makes the change idempotent: the same key is the same change.")
    @click.option("--reason", default="", help="Why, for the ledger.")
    @json_option
    def command(client_id: str, key: str | None, reason: str, as_json: bool) -> None:  # noqa: FBT001
        row, applied = admin.set_client_state(settings(), client_id, state, key=key, reason=reason)
        print_change(row, f"client {client_id} is {state}", applied=applied, as_json=as_json)

    return command


suspend = _state_command("suspend", "suspended", "Let a client start nothing; what runs is settled.")
resume = _state_command("resume", "active", "Let a suspended or closed client work again.")
close = _state_command("close", "closed", "Let a client start nothing and be granted nothing; what runs is settled.")


@click.command(context_settings=NEGATIVE_NUMBERS, epilog="Example: billing client overdraft acme 5000")
@client_argument
@click.argument("limit", type=PRICE)
@click.option("--key", default=None, help="Makes the change idempotent: the same key is the same change.")
@click.option("--reason", default="", help="Why, for the ledger.")
@json_option
def overdraft(client_id: str, limit: int, key: str | None, reason: str, as_json: bool) -> None:  # noqa: FBT001
    """Let a client owe up to so many credits; 0 is the ordinary limit."""
    row, applied = admin.set_overdraft(settings(), client_id, limit, key=key, reason=reason)
    print_change(row, f"client {client_id} may owe {limit:,} credits", applied=applied, as_json=as_json)
