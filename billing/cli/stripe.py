"""`billing stripe …`: Stripe's side of the sync."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from billing import admin
from billing.cli.completing import client_argument
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table

if TYPE_CHECKING:
    from billing.sinks.stripe.setup import MeterSetup

SANDBOX_PORT: Final = 12_111


@click.group(epilog="Example: billing stripe sandbox")
def stripe() -> None:
    """Set up Stripe, or run a stand-in of it."""


@stripe.command(epilog="Example: billing stripe setup --price 0.2 --currency eur")
@click.option("--price", help="What a unit costs, in the currency's smallest unit (0.2 of eur: a fifth of a cent).")
@click.option("--currency", default="eur", show_default=True, help="The currency's three letters.")
@click.option(
    "--interval", type=click.Choice(admin.INTERVALS), default="month", show_default=True, help="A billing period."
)
@click.option("--meter", help="Look at this meter in use only.")
@click.option("--dry-run", is_flag=True, help="Make nothing: say what would be made.")
@json_option
def setup(*, price: str | None, currency: str, interval: str, meter: str | None, dry_run: bool, as_json: bool) -> None:
    """Make the meter of each meter in use, with --price its product and price as well, unless they are there.

    What is there is checked: a meter that counts otherwise is refused.
    """
    found = admin.stripe_setup(
        settings(), price=price, currency=currency, interval=interval, meter=meter, dry_run=dry_run
    )
    if as_json:
        emit_json({"dry_run": dry_run, "meters": found})
        return
    for one in found:
        for line in _lines(one, dry_run=dry_run):
            click.echo(line)


def _lines(one: MeterSetup, *, dry_run: bool) -> list[str]:
    done = "would be made" if dry_run else "made"

    def said(name: str) -> str:
        return done if name in one.made else "is there already"

    lines = [f"meter {one.event_name}{_id(one.meter_id)}: {said('meter')}"]
    if one.product_id is not None or "product" in one.made:
        lines.append(f"product{_id(one.product_id)}: {said('product')}")
    if one.price:
        lines.append(f"price{_id(one.price_id)}: {said('price')}, {one.price}")
    else:
        lines.append("no price: nothing is on an invoice (to make one: --price AMOUNT --currency eur)")
    return lines


def _id(found: str | None) -> str:
    return "" if found is None else f" ({found})"


@stripe.command(epilog="Example: billing stripe invoices acme")
@client_argument
@click.option("--limit", type=click.IntRange(1, 100), default=12, show_default=True, help="Invoices to show.")
@json_option
def invoices(*, client_id: str, limit: int, as_json: bool) -> None:
    """Show what Stripe has put on a client's invoices, the newest first. A draft still changes."""
    found = admin.invoices(settings(), client_id, most=limit)
    if as_json:
        emit_json(found)
        return
    rows = [
        (one.invoice_id, one.status, line.period_start, line.period_end, line.quantity, f"{line.amount} {one.currency}")
        for one in found
        for line in one.lines
    ]
    columns = ("invoice", "state", "from (UTC)", "to (UTC)", "units", "amount (smallest unit)")
    table(None, columns, rows, numbers=2, nothing="no invoices")


@stripe.command(epilog="Example: billing stripe clock --advance-days 31")
@click.option("--advance-days", type=click.IntRange(1, 366), required=True, help="By how many days.")
@json_option
def clock(*, advance_days: int, as_json: bool) -> None:
    """Move the stand-in's time on: periods end, invoices become final. Billing's own time stays."""
    now = admin.advance_stand_in(settings(), days=advance_days)
    if as_json:
        emit_json({"now": now})
    else:
        click.echo(f"the stand-in's time is {now:%Y-%m-%d %H:%M} (UTC)")


@stripe.command(epilog="Example: billing stripe sandbox --data sandbox.sqlite3")
@click.option("--port", type=click.IntRange(0, 65_535), default=SANDBOX_PORT, show_default=True, help="0: any.")
@click.option(
    "--data",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep customers, meters and events in this file; without it they are forgotten at the end.",
)
@json_option
def sandbox(*, port: int, data: Path | None, as_json: bool) -> None:
    """Run the stand-in for Stripe on 127.0.0.1 until Ctrl-C. It is not Stripe: no money moves."""
    from billing.sinks.stripe.sandbox.server import announcement, serve  # noqa: PLC0415 - brings in the server

    serve(port, data, lambda url: emit_json({"url": url}) if as_json else click.echo(announcement(url)))
