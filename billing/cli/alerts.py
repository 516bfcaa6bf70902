"""`billing alerts list`."""

from __future__ import annotations

import click

from billing import admin
from billing.admin.alerts import PAGE_MAX
from billing.cli.completing import clients
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table

_COLUMNS = ("alert", "client", "kind", "when (UTC)", "webhook", "reason", "attempts", "below %", "available", "granted")


@click.group(epilog="Example: billing alerts list --pending")
def alerts() -> None:
    """See who ran low or out, whose bucket was corrupt, whose usage is late or waits; and whether webhooks took it."""


@alerts.command(name="list", epilog="Example: billing alerts list --client acme --pending")
@click.option("--client", "client_id", shell_complete=clients, help="Only of this client.")
@click.option("--pending", is_flag=True, help="Only those that still wait for their webhook's answer.")
@click.option("--limit", type=click.IntRange(1, PAGE_MAX), default=100, show_default=True, help="Alerts to show.")
@json_option
def list_(client_id: str | None, pending: bool, limit: int, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """List alerts, the newest first."""
    found = admin.alerts(settings(), client_id=client_id, pending=pending, limit=limit)
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
            a.reason or (f"{a.redis_key}: {a.found}" if a.redis_key else a.found),
            a.attempts,
            a.threshold_percent,
            a.available,
            a.granted,
        )
        for a in found
    ]
    table(None, _COLUMNS, rows, numbers=4, nothing="no alerts")
