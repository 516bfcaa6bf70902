"""`billing reconcile`: compare, show how the continuous reconciler stands, repair."""

from __future__ import annotations

import dataclasses
import getpass
import os
import socket
from collections.abc import Sequence
from typing import Any, Final

import click

from billing import admin
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table
from billing.core.errors import InvalidValue
from billing.reconciliation.continuous.status import SHOWN_MAX, Status
from billing.reconciliation.repair.rendering import COLUMNS, correction_rows
from billing.reconciliation.repair.repair import Left, Repaired

_LEFT_SHOWN_MAX: Final = 50
_SHARDS_NAMED: Final = 10


@click.command(epilog="Example: billing reconcile acme --no-stripe")
@click.argument("client_ids", nargs=-1, metavar="[CLIENT]...")
@click.option("--no-stripe", is_flag=True, help="Leave Stripe out.")
@click.option("--status", "of_loop", is_flag=True, help="Show how the fulfillment worker's own comparison stands.")
@click.option("--repair", "to_repair", is_flag=True, help="Post what puts buckets right; asks first.")
@click.option("--yes", is_flag=True, help="With --repair: do not ask.")
@json_option
def reconcile(**options: Any) -> None:
    """Compare Redis, PostgreSQL and Stripe to the unit (without CLIENT: of all clients), also while the fleet works.

    Exit code 1 when something differs, or could not be compared; with --repair, when something still does.
    """
    chosen = _Options(**options)
    if chosen.of_loop:
        if chosen.client_ids or chosen.no_stripe or chosen.to_repair:
            raise InvalidValue("--status", " ".join(chosen.client_ids), "stands alone: it is of all clients")
        _show_status(as_json=chosen.as_json)
    elif chosen.to_repair:
        _repair(chosen)
    elif chosen.yes:
        raise InvalidValue("--yes", "", "goes with --repair")
    else:
        _compare(chosen.client_ids, stripe=not chosen.no_stripe, as_json=chosen.as_json)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Options:
    client_ids: tuple[str, ...]
    no_stripe: bool
    of_loop: bool
    to_repair: bool
    yes: bool
    as_json: bool


def _compare(client_ids: tuple[str, ...], *, stripe: bool, as_json: bool) -> None:
    report = admin.reconcile(settings(), client_ids or None, stripe=stripe)
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


def _repair(chosen: _Options) -> None:
    if chosen.as_json and not chosen.yes:
        raise InvalidValue("--json", "--repair", "needs --yes: a program is not asked")
    plan = admin.plan_repair(settings(), chosen.client_ids or None, stripe=not chosen.no_stripe)
    if not chosen.as_json and plan.corrections:
        table(None, COLUMNS, correction_rows(plan.corrections))
    agreed = chosen.yes or not plan.corrections or click.confirm(f"Repair {_clients(len(plan.corrections))}?")
    if not agreed:
        _show_left(plan.left)
        click.echo("nothing was changed")
        click.get_current_context().exit(1)
    done = admin.repair(settings(), plan, made_by=_who())
    if chosen.as_json:
        emit_json(done)
    else:
        _show_left(done.left)
        click.echo(_repair_line(done))
    if not done.ok:
        click.get_current_context().exit(1)


def _show_left(left: Sequence[Left]) -> None:
    if left:
        rows = [(one.client_id or "", one.found, one.why) for one in left[:_LEFT_SHOWN_MAX]]
        table(None, ("client", "not repaired", "what to do"), rows)
    if len(left) > _LEFT_SHOWN_MAX:
        click.echo(f"and {len(left) - _LEFT_SHOWN_MAX:,} more: see --json")


def _repair_line(done: Repaired) -> str:
    parts = [f"{_clients(len(done.posted))} repaired by postings"] if done.posted else []
    if done.rebuilds:
        shards = sorted({made.shard for made in done.rebuilds})
        named = ", ".join(map(str, shards[:_SHARDS_NAMED]))
        parts.append(f"{_clients(len(done.rebuilds))}: a rebuild is asked for (shards {named}), a worker does it")
    if done.left:
        parts.append(f"{len(done.left):,} not repaired")
    return "; ".join(parts) or "nothing to repair"


def _clients(count: int) -> str:
    return f"{count:,} client{'' if count == 1 else 's'}"


def _who() -> str:
    """Return who asks: the system's user and host."""
    try:
        user = getpass.getuser()
    except (KeyError, OSError):
        user = str(os.getuid())
    return f"{user}@{socket.gethostname()}"


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
        for posting in status.refused:
            click.echo(f"refused: a posting to client {posting.client_id}, grant {posting.grant_id}: {posting.reason}")
        for reason, one in status.last_pass.not_compared.items() if status.last_pass else ():
            click.echo(f"not compared: {one['clients']:,} clients ({', '.join(one['named'][:3])}): {reason}")
        click.echo(_status_line(status))
    if not status.ok or not status.on:
        click.get_current_context().exit(1)


def _status_line(status: Status) -> str:
    if not status.on:
        return "off: billing_reconcile_pass_seconds is 0"
    last = status.last_pass
    if last is None or status.age_seconds is None:
        return "no pass has ended yet: a worker with --fulfillment compares every bucket, over and over"
    took = (last.finished_at - last.started_at).total_seconds()
    verdict = "nothing differs"
    if status.standing:
        verdict = f"{status.standing:,} discrepanc{'y stands' if status.standing == 1 else 'ies stand'}"
    elif status.not_compared:
        verdict += f"; {status.not_compared:,} were not compared"
    if status.refused:
        # They are read up to a bound.
        more = " or more" if len(status.refused) == SHOWN_MAX else ""
        verdict += f"; {len(status.refused):,}{more} posting{'' if len(status.refused) == 1 else 's'} refused"
    late = "; it is late: see whether a worker with --fulfillment runs" if status.late else ""
    return (
        f"pass {status.passes:,} ended {status.age_seconds:,.0f} s ago, over {last.clients:,} clients in {took:,.1f} s "
        f"({last.busy_seconds:,.1f} s of work): {verdict}{late}"
    )
