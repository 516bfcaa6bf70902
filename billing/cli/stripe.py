"""`billing stripe …`: Stripe's side of the sync."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from billing import admin
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option

SANDBOX_PORT: Final = 12_111


@click.group(epilog="Example: billing stripe sandbox")
def stripe() -> None:
    """Set up Stripe, or run a stand-in of it."""


@stripe.command(epilog="Example: billing stripe setup")
@json_option
def setup(as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Make the meter that usage is reported to, unless it is there; check that it counts as it must."""
    meter = admin.stripe_setup(settings())
    if as_json:
        emit_json(meter)
    else:
        click.echo(f"meter {meter.event_name} ({meter.meter_id}): {'made' if meter.created else 'is there already'}")


@stripe.command(epilog="Example: billing stripe sandbox --data sandbox.sqlite3")
@click.option("--port", type=click.IntRange(0, 65_535), default=SANDBOX_PORT, show_default=True, help="0: any.")
@click.option(
    "--data",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep customers, meters and events in this file; without it they are forgotten at the end.",
)
def sandbox(*, port: int, data: Path | None) -> None:
    """Run the stand-in for Stripe on 127.0.0.1 until Ctrl-C. It is not Stripe: no money moves."""
    from billing.sinks.stripe.sandbox.server import announcement, serve  # noqa: PLC0415 - brings in the server

    serve(port, data, lambda url: click.echo(announcement(url)))
