"""`billing sync adopt`: what Stripe has and a restored database does not know is taken over."""

from __future__ import annotations

from datetime import timedelta

import click

from billing import admin
from billing.cli.completing import clients
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option
from billing.core.errors import InvalidValue
from billing.core.printable import printable


@click.command(epilog='Example: billing sync adopt --all --reason "restored from the dump of Monday"')
@click.argument("client_id", metavar="[CLIENT]", required=False, shell_complete=clients)
@click.option("--all", "every", is_flag=True, help="All linked clients; then the report to Stripe goes on.")
@click.option("--reason", required=True, help="Why; kept with each increment for ever.")
@click.option("--not-ours", is_flag=True, help="Another system sent what is unknown: take no usage for it.")
@click.option("--dry-run", is_flag=True, help="Say what would be adopted, and change nothing.")
@click.option(
    "--lag-hours",
    type=click.IntRange(0, 1_000),
    default=24,
    show_default=True,
    help="How long ago the last call must be: Stripe's sums show it by then.",
)
@json_option
def adopt(  # noqa: PLR0917 - click gives options by name
    client_id: str | None,
    every: bool,  # noqa: FBT001
    reason: str,
    not_ours: bool,  # noqa: FBT001
    dry_run: bool,  # noqa: FBT001
    lag_hours: int,
    as_json: bool,  # noqa: FBT001
) -> None:
    """Take over what Stripe has of CLIENT, or of --all, and a restored database does not know. Safe to repeat.

    Usage that no increment carries is taken for what Stripe was told, the oldest first; what Stripe has beyond the log
    is named. Exit code 1 when anything is left, or Stripe refuses to tell a sum. With --not-ours all of it is left:
    another system sent it.
    """
    if (client_id is None) != every:
        raise InvalidValue("client", client_id or "", "name one client, or say --all")
    lag = timedelta(hours=lag_hours)
    report = admin.sync_adopt(settings(), client_id, reason, dry_run=dry_run, lag=lag, ours=not not_ours)
    if as_json:
        emit_json(report)
    else:
        would = "would be " if dry_run else ""
        for one in report.places:
            click.echo(
                f"{printable(one.client_id)}, period from {one.period_start:%Y-%m-%d}, meter {one.event_name}: "
                f"Stripe has {one.stripe:,} units, {one.known:,} were known; {one.shown:,} {would}confirmed, "
                f"{one.adopted:,} {would}adopted, {one.left:,} left"
            )
            if one.left and not not_ours:
                click.echo(
                    f"left: {one.left:,} units that no usage of the log explains: write lost usage again and adopt, "
                    f"or give {printable(one.customer_id)} a credit note at Stripe"
                )
            if one.quarantined:
                click.echo(f"{one.quarantined:,} increments {would}quarantined (see: billing sync status)")
        click.echo(
            f"{report.clients:,} clients, {report.looked_at:,} periods: {len(report.places):,} were not as known"
        )
        for line in report.skipped:
            click.secho(f"Error: not adopted: {line}", fg="red", err=True)
        if report.is_trusted:
            click.echo("the report to Stripe goes on")
        elif not dry_run:
            click.echo("nothing is sent before all are adopted: billing sync adopt --all --reason …")
    if report.skipped or (report.left and not not_ours):
        click.get_current_context().exit(1)
