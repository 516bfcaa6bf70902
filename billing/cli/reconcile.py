"""`billing reconcile`."""

from __future__ import annotations

import click

from billing import admin
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table
from billing.core.errors import InvalidValue
from billing.reconciliation.continuous.status import Status


@click.command(epilog="Example: billing reconcile acme --no-stripe")
@click.argument("client_ids", nargs=-1, metavar="[CLIENT]...")
@click.option("--no-stripe", is_flag=True, help="Leave Stripe out.")
@click.option("--status", "of_loop", is_flag=True, help="Show how the fulfillment worker's own comparison stands.")
@json_option
def reconcile(client_ids: tuple[str, ...], no_stripe: bool, of_loop: bool, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Compare Redis, PostgreSQL and Stripe to the unit (without CLIENT: of all clients), also while the fleet works.

    Exit code 1 when something differs, or could not be compared.
    """
    if of_loop:
        if client_ids or no_stripe:
            raise InvalidValue("--status", " ".join(client_ids) or "--no-stripe", "stands alone: it is of all clients")
        _show_status(as_json=as_json)
        return
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


def _show_status(*, as_json: bool) -> None:
    status = admin.reconciler_status(settings())
    if as_json:
        emit_json(status)
    else:
        if status.stands:
            rows = [
                (
                    one.thing.law,
                    one.thing.client_id,
                    "" if one.thing.grant_id is None else one.thing.grant_id,
                    one.found,
                )
                for one in status.stands
            ]
            table(None, ("law", "client", "grant", "what differs"), rows)
        for reason, one in status.last_pass.not_compared.items() if status.last_pass else ():
            click.echo(f"not compared: {one['clients']:,} clients ({', '.join(one['named'][:3])}): {reason}")
        click.echo(_status_line(status))
    if not status.ok:
        click.get_current_context().exit(1)


def _status_line(status: Status) -> str:
    if not status.on:
        return "off: billing_reconcile_pass_seconds is 0"
    last = status.last_pass
    if last is None or status.age_seconds is None:
        return "no pass has ended yet: a worker with --fulfillment compares every bucket, over and over"
    took = (last.finished_at - last.started_at).total_seconds()
    if status.standing:
        verdict = f"{status.standing:,} discrepancies stand"
    elif status.not_compared:
        verdict = f"nothing differs; {status.not_compared:,} were not compared"
    else:
        verdict = "nothing differs"
    late = "; it is late: see whether a worker with --fulfillment runs" if status.late else ""
    return (
        f"pass {status.passes:,} ended {status.age_seconds:,.0f} s ago, over {last.clients:,} clients in {took:,.1f} s "
        f"({last.busy_seconds:,.1f} s of work): {verdict}{late}"
    )
