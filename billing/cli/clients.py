"""`billing client add|list|show|webhook|export`; what changes one is in changes.py, links to Stripe in links.py."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from billing import admin
from billing.admin import ClientView
from billing.cli.changes import close, overdraft, resume, suspend
from billing.cli.completing import client_argument
from billing.cli.context import settings
from billing.cli.exports import export
from billing.cli.links import link
from billing.cli.output import emit_json, json_option, table
from billing.cli.webhooks import webhook
from billing.credits.values import Balance

_COLUMNS = ("client", "state", "since (UTC)", "epoch", "granted", "spent", "held", "available", "owed")


@click.group()
def client() -> None:
    """Add, list and show clients, and link them to who pays for them at Stripe."""


client.add_command(webhook)
client.add_command(export)
for command in (suspend, resume, close, overdraft, link):
    client.add_command(command)


@client.command(epilog="Example: billing client add acme")
@client_argument
@json_option
def add(client_id: str, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Add a client with an empty bucket. Adding it again changes nothing."""
    made, created = admin.add_client(settings(), client_id)
    if as_json:
        emit_json({"client_id": made.client_id, "created": created})
    else:
        click.echo(f"client {made.client_id}: {'added' if created else 'is there already'}")


@client.command(name="list", epilog="Example: billing client list --after acme --limit 50")
@click.option("--limit", type=click.IntRange(1, 10_000), default=100, show_default=True, help="Clients to show.")
@click.option("--after", default="", help="Begin after this client.")
@json_option
def list_(limit: int, after: str, as_json: bool) -> None:  # noqa: FBT001
    """List clients with their balances."""
    _print(list(admin.clients(settings(), limit=limit, after=after)), as_json=as_json, title=None)


@client.command(epilog="Example: billing client show acme")
@client_argument
@json_option
def show(client_id: str, as_json: bool) -> None:  # noqa: FBT001
    """Show a client, its balance and its grants."""
    view = admin.client(settings(), client_id)
    customer = admin.customers(settings(), [client_id]).get(client_id)
    if as_json:
        emit_json({"client": view.client, "balance": view.balance, "stripe_customer": customer})
        return
    _print([view], as_json=False, title=None)
    click.echo(f"Stripe customer: {customer or 'none (see: billing client link)'}")
    if view.balance is not None and view.balance.grants:
        columns = ["granted", "spent", "repaid", "held", "available"]
        # What only terms bring about is shown where there is some.
        columns += ["expired", "voided"] if view.balance.expired or view.balance.voided else []
        rows = [(g.grant_id, *(getattr(g, name) for name in columns)) for g in view.balance.grants]
        table("grants", ("grant", *columns), rows, numbers=len(columns))
        _print_terms(view.balance)


def _print_terms(balance: Balance) -> None:
    """Print the terms of the grants that are still in the bucket, where they are not the ordinary ones."""
    if balance.grant_terms:
        rows = [
            (
                grant_id,
                terms.priority,
                datetime.fromtimestamp(terms.expires_ms / 1_000, UTC) if terms.expires_ms else "never",
                ", ".join(terms.skus) or "all",
                "yes" if terms.voided_ms else "no",
            )
            for grant_id, terms in balance.grant_terms.items()
        ]
        table("terms, in burn order", ("grant", "priority", "expires (UTC)", "SKUs", "voided"), rows)


def _print(views: list[ClientView], *, as_json: bool, title: str | None) -> None:
    if as_json:
        emit_json(views)
        return
    rows = []
    for view in views:
        found, balance = view.client, view.balance
        money: tuple[object, ...] = ("rebuilding", "", "", "", "")
        if balance is not None:
            money = (balance.granted, balance.spent, balance.held, balance.available, balance.owed)
        rows.append((found.client_id, found.state, found.created_at, found.epoch, *money))
    table(title, _COLUMNS, rows, numbers=6, nothing="no clients (billing client add CLIENT)")
