"""`billing allowance add|end|list`."""

from __future__ import annotations

from datetime import datetime
from typing import Any, Final

import click

from billing import admin
from billing.admin.allowances import PAGE_MAX
from billing.cli.amount import CREDITS, INSTANT, NEGATIVE_NUMBERS, PRIORITY
from billing.cli.completing import client_argument, clients
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table
from billing.core.errors import InvalidValue
from billing.ledger.schedules import ScheduleRow

_FOR_EVER: Final = "forever"
_COLUMNS: Final = (
    *("allowance", "client", "state", "every", "rollover", "next (UTC)", "end (UTC)", "why"),
    "credits",
)


class Rollover(click.ParamType[Any]):
    """A number of periods, or for ever."""

    name = "periods"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int | None:  # noqa: ARG002 - click's
        """Read the number; None is for ever."""
        if value == _FOR_EVER:
            return None
        try:
            return int(value)
        except ValueError:
            raise InvalidValue("--rollover", value, f"must be a whole number, or {_FOR_EVER}") from None


@click.group(epilog="Example: billing allowance add acme 1000 --every month --key plan-small")
def allowance() -> None:
    """Grant credits again each month, week or day."""


@allowance.command(
    context_settings=NEGATIVE_NUMBERS,
    epilog="Example: billing allowance add acme 1000 --every month --start 2026-12-01 --key plan-small",
)
@client_argument
@click.argument("credits", type=CREDITS)
@click.option("--key", default=None, help="Makes it idempotent: the same key is the same allowance.")
@click.option("--every", default="month", show_default=True, help="How often: month, week, day.")
@click.option("--start", "starts_at", type=INSTANT, default=None, help="When the first period begins. [default: now]")
@click.option("--end", "ends_at", type=INSTANT, default=None, help="No period begins then or later.")
@click.option(
    "--rollover",
    type=Rollover(),
    default="0",
    show_default=True,
    help="For how many further periods what is left stays usable, or forever.",
)
@click.option("--kind", default="allowance", show_default=True, help="What it is: paid, promo, allowance, adjustment.")
@click.option("--priority", type=PRIORITY, default=100, show_default=True, help="The lowest burns first.")
@click.option("--sku", "skus", multiple=True, help="A SKU that it pays for, as often as needed; none: every SKU.")
@json_option
def add(  # noqa: PLR0913 - one argument per option
    *,
    client_id: str,
    credits: int,
    key: str | None,
    every: str,
    starts_at: datetime | None,
    ends_at: datetime | None,
    rollover: int | None,
    kind: str,
    priority: int,
    skus: tuple[str, ...],
    as_json: bool,
) -> None:
    """Grant a client credits in each period, the present one included."""
    row, created = admin.add_allowance(
        settings(),
        client_id,
        credits,
        key=key,
        every=every,
        starts_at=starts_at,
        ends_at=ends_at,
        rollover=rollover,
        terms=admin.check_terms(kind=kind, priority=priority, skus=skus),
    )
    said = f": {row.credits:,} credits for {row.client_id} {row.cycle}"
    known = f"its key is that of one that ended: {row.reason}" if row.state == "ended" else "is there already"
    _print(row, f"{said}; {'added' if created else known}", as_json=as_json)


@allowance.command(context_settings=NEGATIVE_NUMBERS, epilog="Example: billing allowance end 7")
@click.argument("schedule_id", type=CREDITS)
@click.option("--key", default=None, help="Makes the end idempotent; without one, the allowance does.")
@json_option
def end(schedule_id: int, key: str | None, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Grant nothing more of an allowance. What it has granted stays."""
    row = admin.end_allowance(settings(), schedule_id, key=key)
    _print(row, f" of {row.client_id}: ended", as_json=as_json)


@allowance.command(name="list", epilog="Example: billing allowance list --client acme")
@click.option("--client", "client_id", shell_complete=clients, help="Only of this client.")
@click.option("--ended", is_flag=True, help="Also those that have ended.")
@click.option("--limit", type=click.IntRange(1, PAGE_MAX), default=100, show_default=True, help="Allowances to show.")
@json_option
def list_(client_id: str | None, ended: bool, limit: int, as_json: bool) -> None:  # noqa: FBT001
    """List allowances, the newest first; `why` says what keeps one from being granted."""
    found = admin.allowances(settings(), client_id=client_id, ended=ended, limit=limit)
    if as_json:
        emit_json(found)
        return
    table(None, _COLUMNS, [_cells(row) for row in found], numbers=1, nothing="no allowances")


def _cells(row: ScheduleRow) -> tuple[object, ...]:
    following = row.next_at if row.state == "open" else None
    rollover = _FOR_EVER if row.rollover is None else str(row.rollover)
    head = (str(row.schedule_id), row.client_id, row.state, row.every, rollover)
    return (*head, following, row.ends_at, row.reason, row.credits)


def _print(row: ScheduleRow, said: str, *, as_json: bool) -> None:
    if as_json:
        emit_json(row)
    else:
        click.echo(f"allowance {row.schedule_id}{said}")
