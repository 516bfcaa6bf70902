"""`billing reconcile`."""

from __future__ import annotations

import click

from billing import admin
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option


@click.command(epilog="Example: billing reconcile acme --no-stripe")
@click.argument("client_ids", nargs=-1, metavar="[CLIENT]...")
@click.option("--no-stripe", is_flag=True, help="Leave Stripe out.")
@json_option
def reconcile(client_ids: tuple[str, ...], no_stripe: bool, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Compare Redis, PostgreSQL and Stripe to the unit (without CLIENT: of all clients), also while the fleet works.

    Exit code 1 when something differs, or could not be compared.
    """
    report = admin.reconcile(settings(), client_ids or None, stripe=not no_stripe)
    if as_json:
        emit_json(report)
    else:
        from rich.console import Console  # noqa: PLC0415 - slow, and not needed for JSON

        from billing.reconciliation.rendering import discrepancies_table, laws_table, summary  # noqa: PLC0415

        console = Console()
        console = console if console.is_terminal else Console(width=120)
        console.print(laws_table(report))
        if report.discrepancies:
            console.print(discrepancies_table(report))
        click.echo(summary(report))
    if not report.ok:
        click.get_current_context().exit(1)
