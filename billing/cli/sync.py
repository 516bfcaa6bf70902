"""`billing sync plan|flush|push|confirm|errors`, and the group of the other sync commands."""

from __future__ import annotations

import click

from billing import admin
from billing.cli.completing import client_argument
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option
from billing.cli.sync_adopt import adopt
from billing.cli.sync_reconcile import reconcile
from billing.cli.sync_resolve import resolve
from billing.cli.sync_status import show, status


@click.group(epilog="Example: billing sync plan && billing sync push && billing sync status")
def sync() -> None:
    """Report usage to Stripe: plan increments, push them, confirm them, see how they stand."""


@sync.command(epilog="Example: billing sync plan")
@json_option
def plan(as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Plan one increment per client, meter and billing period for all usage that has none. Nothing is sent."""
    report = admin.sync_plan(settings())
    if as_json:
        emit_json(report)
        return
    click.echo(f"planned {report.increments:,} increments with {report.units:,} units for {report.clients:,} clients")
    if report.reissued:
        click.echo(f"{report.reissued:,} that could not be sent as they were have another identifier now")
    if report.written_off:
        click.echo(f"{report.written_off:,} came too late and are written off (billing_stripe_late_usage)")
    if report.quarantined:
        click.echo(f"{report.quarantined:,} were sent under too many identifiers (see: billing sync status)")
    for reason, clients in sorted(report.waiting.items()):
        click.echo(f"usage of {clients:,} clients waits: {reason}")
    if report.unread:
        click.echo(f"billing periods were not read: {report.unread}")
    if report.postponed:
        click.echo(f"{report.postponed:,} more have no free minute yet: the next plan carries them")
    if report.busy:
        click.echo("another plan is at work; it carries the rest")
    elif not report.complete:
        click.echo("the time of this plan is used up; the next one carries the rest")


@sync.command(epilog="Example: billing sync flush acme")
@client_argument
@json_option
def flush(client_id: str, as_json: bool) -> None:  # noqa: FBT001
    """Plan and push one client's usage now: before its price changes, or its subscription ends.

    It waits up to two minutes for another plan, or for a free minute. Exit code 1 when something is left that should
    be gone.
    """
    report = admin.sync_flush(settings(), client_id)
    if as_json:
        emit_json(report)
    else:
        click.echo(f"planned {report.increments:,} and sent {report.sent:,} increments of {client_id}")
        for line in report.why:
            click.echo(f"left: {line}")
        if not report.why:
            click.echo("nothing is left")
    if not report.is_complete:
        click.get_current_context().exit(1)


@sync.command(epilog="Example: billing sync push")
@json_option
def push(as_json: bool) -> None:  # noqa: FBT001
    """Send what is planned. What came of it is safe to push again. Exit code 1 when it stopped on the way."""
    report = admin.sync_push(settings())
    if as_json:
        emit_json(report)
    else:
        click.echo(
            f"sent {report.sent:,} increments; {report.pending:,} still pending, {report.ambiguous:,} ambiguous, "
            f"{report.rejected:,} rejected"
        )
        if report.lost:
            click.echo(f"{report.lost:,} had been left by a pusher that ended")
        if report.more:
            click.echo("more may wait: push again (billing_stripe_push_batch bounds one push)")
    for line in report.refused:
        click.secho(f"Error: a meter takes nothing, and its increments wait: {line}", fg="red", err=True)
    for line in report.held:
        click.secho(f"Error: {line}", fg="red", err=True)
    if report.stopped is not None:
        click.secho(f"Error: stopped: {report.stopped}", fg="red", err=True)
    if report.refused or report.held or report.stopped is not None:
        click.get_current_context().exit(1)


@sync.command(epilog="Example: billing sync confirm")
@json_option
def confirm(as_json: bool) -> None:  # noqa: FBT001
    """Read Stripe's own summaries: what shows there is confirmed."""
    report = admin.sync_confirm(settings())
    if as_json:
        emit_json(report)
    else:
        click.echo(f"confirmed {report.confirmed:,} of {report.checked:,} increments that were looked at")
        if report.withdrawn:
            click.echo(f"{report.withdrawn:,} were counted twice, and are taken back once")
        if report.quarantined:
            click.echo(f"{report.quarantined:,} are quarantined (see: billing sync status)")
    for line in report.refused:
        click.secho(f"Error: a meter's sums cannot be read: {line}", fg="red", err=True)
    if report.refused:
        click.get_current_context().exit(1)


@sync.command(epilog="Example: billing sync errors")
@json_option
def errors(as_json: bool) -> None:  # noqa: FBT001
    """Read which events Stripe has dropped after it had taken them."""
    report = admin.sync_errors(settings())
    if as_json:
        emit_json(report)
        return
    click.echo(
        f"read {report.read:,} reports: {report.rejected:,} increments rejected, {report.quarantined:,} quarantined"
    )
    if report.unmatched:
        click.echo(f"{report.unmatched:,} are about calls that they do not name (see: billing sync status)")
    if report.more:
        click.echo("there may be more: read again")


for _command in (status, show, resolve, adopt, reconcile):
    sync.add_command(_command)
