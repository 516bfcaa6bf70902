"""`billing quote`."""

from __future__ import annotations

from typing import Final

import click

from billing import admin
from billing.cli.amount import NEGATIVE_NUMBERS, Amount
from billing.cli.completing import client_argument
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option
from billing.task.quoting import Quote


@click.command(context_settings=NEGATIVE_NUMBERS, epilog="Example: billing quote acme premium-search 3")
@client_argument
@click.argument("sku")
@click.argument("quantity", type=Amount(minimum=0), default="1")
@click.option("--check", is_flag=True, help="Exit code 1 if it would not be admitted now.")
@json_option
def quote(client_id: str, sku: str, quantity: int, check: bool, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Show what QUANTITY (default 1) of SKU would cost a client, and whether it would be admitted now.

    Changes nothing, and promises nothing.
    """
    found = admin.quote(settings(), client_id, sku, quantity)
    if as_json:
        emit_json(found)
    else:
        click.echo(_line(found))
    if check and not found.admitted:
        click.get_current_context().exit(1)


def _line(found: Quote) -> str:
    cost = f"{found.quantity:,} of {found.sku} costs {found.credits:,} credits"
    prices = f"price book version {found.price_version}"
    has = f"client {found.client_id} has {found.available:,}"
    if found.owed:
        has += f" and owes {found.owed:,}"
    answer = _ANSWERS.get(found.outcome.name, f"it would be refused now: {found.outcome.name.lower()}")
    return f"{cost} ({prices}); {has}: {answer}"


_ANSWERS: Final = {
    "HELD": "it would be admitted now",
    "INSUFFICIENT": "it would be refused now",
    "OUTBOX_FULL": "it would have to wait: too many usage events wait for the broker",
    "SUSPENDED": "it would be refused now: the client is suspended",
    "CLOSED": "it would be refused now: the client is closed",
}
