"""`billing grant`, `billing balance`, `billing usage`."""

from __future__ import annotations

import click

from billing import admin
from billing.cli.amount import CREDITS, NEGATIVE_NUMBERS
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table


@click.command(context_settings=NEGATIVE_NUMBERS, epilog="Example: billing grant acme 10000 --key invoice-2026-11")
@click.argument("client_id")
@click.argument("credits", type=CREDITS)
@click.option("--key", default=None, help="Makes the grant idempotent: the same key is the same grant.")
@json_option
def grant(client_id: str, credits: int, key: str | None, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Grant credits to a client."""
    row, applied = admin.grant(settings(), client_id, credits, key=key)
    if as_json:
        emit_json({"grant_id": row.grant_id, "client_id": row.client_id, "credits": row.credits, "applied": applied})
        return
    state = "is in its bucket" if applied else "is in the ledger; its bucket follows (see: billing doctor)"
    click.echo(f"grant {row.grant_id}: {row.credits:,} credits for {row.client_id}; it {state}")


@click.command(epilog="Example: billing balance acme")
@click.argument("client_id")
@json_option
def balance(client_id: str, as_json: bool) -> None:  # noqa: FBT001
    """Show what a client has: granted + owed = available + held + spent."""
    found = admin.balance(settings(), client_id)
    if as_json:
        emit_json(found)
        return
    columns = ("client", "granted", "owed", "available", "held", "spent")
    row = (found.client_id, found.granted, found.owed, found.available, found.held, found.spent)
    table(None, columns, [row], numbers=5)


@click.command(epilog="Example: billing usage acme --limit 10")
@click.argument("client_id")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="Rows to show.")
@json_option
def usage(client_id: str, limit: int, as_json: bool) -> None:  # noqa: FBT001
    """Show a client's usage history, the newest row first, and what all of it adds up to."""
    found = settings()
    rows = admin.usage(found, client_id, limit=limit)
    totals = admin.usage_totals(found, [client_id])
    spent, count = (totals[0].spent, totals[0].rows) if totals else (0, 0)
    if as_json:
        emit_json({"rows": rows, "total": {"rows": count, "credits": spent}})
        return
    columns = ("occurred at (UTC)", "correlation id", "SKU", "quantity", "credits")
    lines = [(row.occurred_at, row.correlation_id, row.sku, row.quantity, row.credits) for row in rows]
    table(None, columns, lines, numbers=2)
    click.echo(f"{len(rows):,} of {count:,} rows shown; {spent:,} credits in all")
