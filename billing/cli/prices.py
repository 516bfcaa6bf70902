"""`billing price set|list`."""

from __future__ import annotations

from datetime import datetime

import click

from billing import admin
from billing.cli.amount import INSTANT, NEGATIVE_NUMBERS, PRICE
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table


@click.group()
def price() -> None:
    """Set and list prices. A price is never changed: a new one takes its place from an instant on."""


@price.command(
    name="set", context_settings=NEGATIVE_NUMBERS, epilog="Example: billing price set page-capture 5 --unit page"
)
@click.argument("sku")
@click.argument("credits_per_unit", type=PRICE)
@click.option("--unit", required=True, help="What one unit is, as: page.")
@click.option("--from", "effective_at", type=INSTANT, default=None, help="When it takes effect (default: now).")
@json_option
def set_(sku: str, credits_per_unit: int, unit: str, effective_at: datetime | None, as_json: bool) -> None:  # noqa: FBT001
    """Set what one unit of SKU costs, in credits."""
    made = admin.set_price(settings(), sku, credits_per_unit, unit, effective_at=effective_at)
    if as_json:
        emit_json(made)
    else:
        since = made.effective_at.isoformat(sep=" ", timespec="seconds")
        click.echo(
            f"{made.sku}: {made.credits_per_unit:,} credits per {made.unit} from {since} (version {made.version})"
        )


@price.command(name="list", epilog="Example: billing price list --json")
@json_option
def list_(as_json: bool) -> None:  # noqa: FBT001
    """List every price that was ever set."""
    found = admin.prices(settings())
    if as_json:
        emit_json(list(found))
        return
    rows = [(p.sku, p.unit, p.effective_at, p.version, p.credits_per_unit) for p in found]
    table(
        None,
        ("sku", "unit", "from (UTC)", "version", "credits per unit"),
        rows,
        numbers=2,
        nothing="no prices (billing price set SKU CREDITS --unit UNIT)",
    )
