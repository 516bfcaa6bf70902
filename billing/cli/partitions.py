"""`billing partitions list|make|detach|attach`."""

from __future__ import annotations

from typing import Any, Final

import click

from billing import admin
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table
from billing.schema.months import Partition

_COLUMNS: Final = ("month", "where", "from (UTC)", "until (UTC)", "rows", "KiB")
_WHERE: Final = {
    "adrift": "neither: run detach or attach",
    "leaving": "half detached: run detach or attach",
}


@click.group(epilog="Example: billing partitions list")
def partitions() -> None:
    """Months of the usage history, and of its archive."""


@partitions.command(name="list", epilog="Example: billing partitions list --exact")
@click.option("--exact", is_flag=True, help="Count the rows of large months, which reads them.")
@json_option
def list_(exact: bool, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """List every part of the history. Exit code 1 when a month of the past or of the next five weeks is missing."""
    found = admin.partitions(settings(), exact=exact)
    if as_json:
        emit_json({"partitions": [_plain(part) for part in found.partitions], "missing": found.missing})
    else:
        table(None, _COLUMNS, [_cells(part) for part in found.partitions], numbers=2)
        for month in found.missing:
            click.echo(f"missing: {month}: its events wait; run: billing partitions make")
    if found.missing:
        click.get_current_context().exit(1)


@partitions.command(epilog="Example: billing partitions make")
@json_option
def make(as_json: bool) -> None:  # noqa: FBT001
    """Make the months for a year ahead. Beat has this done every day."""
    made = admin.make_months(settings())
    if as_json:
        emit_json(made)
        return
    for name in made:
        click.echo(f"made {name}")
    if not made:
        click.echo("every month is there for a year ahead")


@partitions.command(epilog="Example: billing partitions detach 2026-03")
@click.argument("month")
@json_option
def detach(month: str, as_json: bool) -> None:  # noqa: FBT001
    """Move a MONTH, as 2026-03, to the schema `archive`. Nothing is deleted; receipts and sums read it there.

    Refused for a month that ended less than 90 days ago, or whose usage is still on its way to Stripe. A move that was
    killed is completed by the same command.
    """
    _moved(admin.detach_month(settings(), month), as_json=as_json)


@partitions.command(epilog="Example: billing partitions attach 2026-03")
@click.argument("month")
@json_option
def attach(month: str, as_json: bool) -> None:  # noqa: FBT001
    """Move a MONTH, as 2026-03, from the archive back to the history."""
    _moved(admin.attach_month(settings(), month), as_json=as_json)


def _moved(part: Partition, *, as_json: bool) -> None:
    if as_json:
        emit_json(_plain(part))
        return
    click.echo(f"{part.month} is in the {part.place}: {part.schema}.{part.name}")


def _plain(part: Partition) -> dict[str, Any]:
    return {
        "month": part.month,
        "table": f"{part.schema}.{part.name}",
        "place": part.place,
        "from": part.start,
        "until": part.end,
        "rows": part.rows,
        "rows_exact": part.exact,
        "bytes": part.size_bytes,
        "move_begun": part.prepared,
    }


def _cells(part: Partition) -> tuple[object, ...]:
    where = _WHERE.get(part.place, part.place) + (" (a move was begun)" if part.prepared else "")
    rows = "not known" if part.rows is None else f"{'' if part.exact else '~'}{part.rows:,}"
    return (part.month, where, part.start, part.end, rows, (part.size_bytes or 0) // 1_024)
