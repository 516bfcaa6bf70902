"""`billing grant`, `billing void`, `billing balance`."""

from __future__ import annotations

import dataclasses
from datetime import datetime

import click

from billing import admin
from billing.admin import PastBalance
from billing.cli.amount import CREDITS, INSTANT, NEGATIVE_NUMBERS, PRIORITY
from billing.cli.changes import applied_text, print_change
from billing.cli.completing import client_argument
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table
from billing.credits.terms import ClientTerms
from billing.ledger.grants import GrantRow


@click.command(context_settings=NEGATIVE_NUMBERS, epilog="Example: billing grant acme 10000 --key invoice-2026-11")
@client_argument
@click.argument("credits", type=CREDITS)
@click.option("--key", default=None, help="Makes the grant idempotent: the same key is the same grant.")
@click.option("--kind", default="paid", show_default=True, help="What it is: paid, promo, allowance, adjustment.")
@click.option("--priority", type=PRIORITY, default=100, show_default=True, help="The lowest burns first.")
@click.option("--expires", "expires_at", type=INSTANT, default=None, help="When it ends, to the millisecond.")
@click.option("--sku", "skus", multiple=True, help="A SKU that it pays for, as often as needed; none: every SKU.")
@json_option
def grant(
    client_id: str,
    credits: int,
    *,
    key: str | None,
    kind: str,
    priority: int,
    expires_at: datetime | None,
    skus: tuple[str, ...],
    as_json: bool,
) -> None:
    """Grant credits to a client. They burn by priority, then expiry, then in the order of the grants."""
    terms = admin.check_terms(kind=kind, priority=priority, expires_at=expires_at, skus=skus)
    row, applied = admin.grant(settings(), client_id, credits, key=key, terms=terms)
    print_grant(row, applied=applied, as_json=as_json)


@click.command(
    context_settings=NEGATIVE_NUMBERS, epilog="Example: billing void 42 --reason 'chargeback of invoice-2026-11'"
)
@click.argument("grant_id", type=CREDITS)
@click.option("--key", default=None, help="Makes the void idempotent; without one, the grant does.")
@click.option("--reason", default="", help="Why, for the ledger.")
@json_option
def void(grant_id: int, key: str | None, reason: str, as_json: bool) -> None:  # noqa: FBT001
    """Take a grant back. What it has paid stays paid, debt too; what runs were lent is voided as they give it back."""
    row, applied = admin.void(settings(), grant_id, key=key, reason=reason)
    print_change(row, f"grant {grant_id} of {row.client_id} is voided", applied=applied, as_json=as_json)


def print_grant(row: GrantRow, *, applied: bool, as_json: bool) -> None:
    """Print a grant."""
    if as_json:
        named = {"grant_id": row.grant_id, "client_id": row.client_id, "credits": row.credits, "applied": applied}
        emit_json(named | dataclasses.asdict(row.terms))
        return
    click.echo(f"grant {row.grant_id}: {row.credits:,} credits for {row.client_id}; it {applied_text(applied)}")


@click.command(epilog="Example: billing balance acme --at 2026-11-01")
@client_argument
@click.option("--at", type=INSTANT, default=None, help="Show the balance of a past instant, from ledger and log.")
@json_option
def balance(client_id: str, at: datetime | None, as_json: bool) -> None:  # noqa: FBT001
    """Show what a client has: granted + owed = available + held + spent + expired + voided."""
    if at is not None:
        _print_past(admin.balance_at(settings(), client_id, at), as_json=as_json)
        return
    found = admin.balance(settings(), client_id)
    if as_json:
        emit_json(found)
        return
    # What only terms bring about is shown where there is some.
    ended = ("expired", "voided") if found.expired or found.voided else ()
    columns = ("client", "granted", "owed", "available", "held", "spent", *ended)
    row = (found.client_id, found.granted, found.owed, found.available, found.held, found.spent)
    table(None, columns, [(*row, *(getattr(found, name) for name in ended))], numbers=5 + len(ended))
    if found.terms != ClientTerms():
        click.echo(f"{found.terms.state.name.lower()}; may owe {found.terms.overdraft_limit:,}")


def _print_past(found: PastBalance, *, as_json: bool) -> None:
    if as_json:
        emit_json(found)
        return
    columns = ("client", "at (UTC)", "granted", "spent", "expired", "voided", "left")
    row = (found.client_id, found.at, found.granted, found.spent, found.expired, found.voided, found.left)
    table(None, columns, [row], numbers=5)
