"""`billing sync status|show`: how the report to Stripe stands, and the whole story of one increment."""

from __future__ import annotations

import shlex
from collections.abc import Sequence

import click

from billing import admin
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table
from billing.core.printable import printable
from billing.sinks.sync.telling.status import Last, SyncStatus, Waiting
from billing.sinks.sync.telling.story import Story


@click.command(epilog="Example: billing sync status --json")
@json_option
def status(as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Show where every credit of usage stands on its way to Stripe, and what waits for whom."""
    found = admin.sync_status(settings())
    if as_json:
        emit_json(found)
        return
    if len(found.meters) > 1:
        rows = [
            (meter.event_name, s.state, s.oldest, s.increments, s.clients, s.units)
            for meter in found.meters
            for s in meter.states
        ]
        table(None, ("meter", "state", "oldest planned (UTC)", "increments", "clients", "units"), rows, numbers=3)
    else:
        sums = [(s.state, s.oldest, s.increments, s.clients, s.units) for s in found.states]
        table(None, ("state", "oldest planned (UTC)", "increments", "clients", "units"), sums, numbers=3)
    _last(found.last)
    _waiting(found)
    if found.concerns:
        concerns = [(c.increment_id, c.client_id, c.state, c.reason, c.command) for c in found.concerns]
        table("to look at", ("increment", "client", "state", "why", "next"), concerns)
    if found.concerned > len(found.concerns):
        click.echo(f"and {found.concerned - len(found.concerns):,} more to look at")
    if found.unmatched:
        reports = [(r.event_name, r.code, r.window_end, r.event_id, r.count) for r in found.unmatched_reports]
        columns = ("meter", "error", "until (UTC)", "event", "calls")
        table("reported by Stripe, of calls that are not ours", columns, reports, numbers=1)
    if found.unmatched > len(found.unmatched_reports):
        click.echo(f"and {found.unmatched - len(found.unmatched_reports):,} more such reports")


@click.command(epilog="Example: billing sync show 1204")
@click.argument("increment_id", metavar="INCREMENT", type=int)
@json_option
def show(increment_id: int, as_json: bool) -> None:  # noqa: FBT001
    """Show the whole story of one increment: what it carries, every call, what was said of it, what happens next."""
    story = admin.sync_show(settings(), increment_id)
    if as_json:
        emit_json(story)
        return
    for line in _head(story):
        click.echo(line)
    parts = [(part.sku, part.hour, part.credits_from, part.credits_to, part.credits) for part in story.parts]
    table("what it carries", ("SKU", "hour (UTC)", "from", "up to", "credits"), parts, numbers=3)
    generations = [(str(g.generation), g.made_at, g.identifier, g.reason) for g in story.generations]
    table("identifiers", ("generation", "made (UTC)", "identifier", "why the one before was given up"), generations)
    if story.attempts:
        attempts = [
            (
                str(a.attempt),
                a.started_at,
                a.outcome or "not known",
                str(a.http_status or ""),
                a.request_id,
                a.idempotency_key,
                a.reason,
            )
            for a in story.attempts
        ]
        columns = ("attempt", "when (UTC)", "outcome", "HTTP", "request", "idempotency key", "reason")
        table("calls", columns, attempts)
    if story.reports:
        reports = [(r.code, r.window_end, r.event_id, r.count) for r in story.reports]
        table("reported by Stripe", ("error", "until (UTC)", "event", "calls"), reports, numbers=1)
    if story.resolutions:
        said = [(str(r.generation), r.resolved_at, r.was, r.resolved_as, r.reason) for r in story.resolutions]
        table("resolved", ("generation", "when (UTC)", "was", "as", "reason"), said)
    click.echo(f"next: {story.next.what}" + (f" ({story.next.command})" if story.next.command else ""))


def _head(story: Story) -> Sequence[str]:
    found = story.increment
    credits_ = f", {story.credits:,} credits" if found.credits_per_unit != 1 else ""
    lines = [
        f"increment {found.increment_id} of client {printable(found.client_id)}: {found.state.value}"
        + (f": {found.reason}" if found.reason else ""),
        f"{found.units:,} units{credits_} of meter {found.event_name}, customer {found.customer_id}",
        f"{found.kind.value.replace('_', ' ')} of {found.event_at:%Y-%m-%d %H:%M:%S} UTC, {found.identifier}",
        f"period {found.period_start:%Y-%m-%d %H:%M} to {found.period_end:%Y-%m-%d %H:%M} UTC"
        + ("" if found.closes_at is None else f", closes {found.closes_at:%Y-%m-%d %H:%M} UTC"),
    ]
    if found.carries_from is not None:
        lines.append(f"carries usage of earlier periods, from {found.carries_from:%Y-%m-%d %H:%M} UTC on")
    if found.confirmed_at is not None:
        lines.append(f"confirmed {found.confirmed_at:%Y-%m-%d %H:%M} UTC")
    return lines


def _waiting(found: SyncStatus) -> None:
    for waiting, what, then in (
        (found.unplanned, "not planned yet", "next: billing sync plan"),
        (found.remainder, "less than one unit", "it waits for more usage"),
        (found.carried, "carried", "returned by corrections; what is used next is reported less"),
        (found.late, "late", "usage of earlier periods, in the present ones' increments"),
        (found.unlinked, "waiting for a link", "billing client link CLIENT cus_…"),
        (found.unbilled, "waiting for a subscription", "; ".join(found.unbilled.reasons)),
    ):
        if waiting.clients:
            click.echo(f"{what}: {_credits(waiting)} ({then})")


def _last(last: Last) -> None:
    named = (("planned", last.planned_at), ("sent", last.sent_at), ("looked at", last.checked_at))
    known = [f"{what} {at:%Y-%m-%d %H:%M} UTC" for what, at in named if at is not None]
    if known:
        click.echo(f"last {', '.join(known)}")


def _credits(waiting: Waiting) -> str:
    names = ", ".join(shlex.quote(printable(name)) for name in waiting.names)
    more = ", …" if waiting.clients > len(waiting.names) else ""
    return f"{waiting.credits:,} credits of {waiting.clients:,} clients: {names}{more}"
