"""`billing alerts list` and `resend`."""

from __future__ import annotations

import click

from billing import admin
from billing.admin.alerts import PAGE_MAX, AlertRow
from billing.cli.completing import clients
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table
from billing.schema.operations import ALERT_KINDS

_COLUMNS = ("alert", "client", "kind", "when (UTC)", "webhook", "reason", "attempts", "below %", "available", "granted")


@click.group(epilog="Example: billing alerts list --failed")
def alerts() -> None:
    """See what clients were told, or the operator: low balances, debt, late usage; and send to webhooks again."""


@alerts.command(name="list", epilog="Example: billing alerts list --client acme --pending")
@click.option("--client", "client_id", shell_complete=clients, help="Only of this client.")
@click.option("--kind", type=click.Choice(ALERT_KINDS), help="Only of this kind.")
@click.option("--pending", is_flag=True, help="Only those that still wait for their webhook's answer.")
@click.option("--failed", is_flag=True, help="Only those that their webhook took at no attempt.")
@click.option("--limit", type=click.IntRange(1, PAGE_MAX), default=100, show_default=True, help="Alerts to show.")
@json_option
def list_(client_id: str | None, kind: str | None, pending: bool, failed: bool, limit: int, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """List alerts, the newest first."""
    given = {"client_id": client_id, "kind": kind}
    found = admin.alerts(settings(), **given, pending=pending, failed=failed, limit=limit)
    if as_json:
        emit_json(found)
        return
    rows = [
        (
            str(a.alert_id),
            a.client_id,
            a.kind,
            a.occurred_at,
            a.delivery,
            a.reason or _what(a),
            a.attempts,
            a.threshold_percent,
            a.available,
            a.granted,
        )
        for a in found
    ]
    table(None, _COLUMNS, rows, numbers=4, nothing="no alerts")


@alerts.command(epilog="Example: billing alerts resend --client acme --failed")
@click.argument("alert_ids", metavar="[ALERT_ID]...", type=int, nargs=-1)
@click.option("--client", "client_id", shell_complete=clients, help="With --failed: only of this client.")
@click.option("--failed", is_flag=True, help="All that their webhooks took at no attempt.")
@json_option
def resend(alert_ids: tuple[int, ...], client_id: str | None, failed: bool, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Post alerts to their webhooks again, under the same ids: who had one already drops it."""
    resent = admin.resend_alerts(settings(), alert_ids, client_id=client_id, failed=failed)
    if as_json:
        emit_json(resent)
        return
    count = len(resent.alert_ids)
    click.echo(f"{count:,} {'alert goes' if count == 1 else 'alerts go'} out again")
    if resent.more:
        click.echo("more have failed: run it again")


def _what(a: AlertRow) -> str:
    """Return what a kind without amounts in columns is about."""
    if "owed" in a.details:
        return f"owes {a.details['owed']:,}, limit {a.details['overdraft_limit']:,}"
    if a.redis_key:
        return f"{a.redis_key}: {a.found}"
    return f"{a.found} ({a.details['credits']:,} credits)" if "credits" in a.details else a.found
