"""`billing meter add|list`: what units usage is reported in, where one credit is not the unit."""

from __future__ import annotations

import click

from billing import admin
from billing.catalog.meters import UsageMeter
from billing.cli.amount import NEGATIVE_NUMBERS, Amount
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table


@click.group(epilog="Example: billing meter list")
def meter() -> None:
    """Add and list meters. A meter is never changed: another unit is another meter."""


@meter.command(
    context_settings=NEGATIVE_NUMBERS,
    epilog="Example: billing meter add llm_tokens --credits-per-unit 1000 --unit 'thousand tokens' --sku llm-tokens",
)
@click.argument("event_name")
@click.option("--credits-per-unit", type=Amount(), default=1, show_default=True, help="Credits of one unit.")
@click.option("--unit", default="credits", show_default=True, help="What one unit is, as: token.")
@click.option("--sku", "skus", multiple=True, help="A SKU that it counts from now on; may be given again.")
@json_option
def add(event_name: str, credits_per_unit: int, unit: str, skus: tuple[str, ...], as_json: bool) -> None:  # noqa: FBT001
    """Add a meter for some SKUs. The same again adds further SKUs."""
    found = settings()
    made, new = admin.add_meter(found, event_name, credits_per_unit=credits_per_unit, unit=unit, skus=skus)
    unpriced = admin.skus_without_price(found, skus)
    if as_json:
        emit_json({"meter": made, "changed": new, "without_price": unpriced})
        return
    done = "added" if new else "is there already"
    click.echo(f"meter {made.event_name}: {done}, {made.credits_per_unit:,} credits per unit of {made.unit}")
    click.echo(f"counts {', '.join(made.skus) or 'no SKU yet'}")
    for sku in unpriced:
        click.echo(f"SKU {sku} has no price yet: billing price set {sku} CREDITS --unit UNIT")


@meter.command(name="list", epilog="Example: billing meter list --json")
@json_option
def list_(as_json: bool) -> None:  # noqa: FBT001
    """List the meters in use; the one of the settings counts what no other one does."""
    found = settings()
    known = admin.meters(found)
    if as_json:
        emit_json(known)
        return
    rows = [(one.event_name, _counted(one, found.stripe_meter), one.unit, one.credits_per_unit) for one in known]
    table(None, ("meter", "SKUs", "unit", "credits per unit"), rows, numbers=1)


def _counted(one: UsageMeter, default: str) -> str:
    others = ["all others"] if one.event_name == default else []
    return ", ".join([*one.skus, *others])
