"""`billing usage`: the newest rows of a client, or what its usage adds up to."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from typing import Final

import click

from billing import admin
from billing.admin.usage_sums import GROUPS_MAX, UsageSums
from billing.cli.completing import client_argument
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table
from billing.cli.selecting import selecting
from billing.core.printable import printable
from billing.fulfillment.groups import KEYS, Group
from billing.fulfillment.reading import UsageRow
from billing.fulfillment.selection import Selection

_ROWS_SHOWN: Final = 20
_HEADINGS: Final = {"sku": "SKU", "day": "day (UTC)", "hour": "hour (UTC)", "task": "task"}


@click.command(epilog="Example: billing usage acme --from 2026-11-01 --by day")
@client_argument
@selecting
@click.option("--by", type=click.Choice(list(KEYS)), default=None, help="Add it up, instead of listing the rows.")
@click.option(
    "--limit",
    type=click.IntRange(1, GROUPS_MAX),
    default=None,
    help=f"Rows or groups to show (default: {_ROWS_SHOWN} rows, {GROUPS_MAX:,} groups).",
)
@json_option
def usage(
    *,
    client_id: str,
    start: datetime | None,
    end: datetime | None,
    correlation_id: str | None,
    root_id: str | None,
    by: str | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Show what a client used: its newest rows, or, with --by, sums per SKU, day, hour or task.

    Without a span, rows are of all time, sums of the current month (UTC); of one task or workflow, both are of ever.
    """
    of = Selection(start=start, end=end, correlation_id=correlation_id, root_id=root_id)
    if by is None:
        _list(client_id, of, limit or _ROWS_SHOWN, as_json=as_json)
    else:
        _sums(admin.usage_by(settings(), client_id, by, of, limit=limit or GROUPS_MAX), as_json=as_json)


def _list(client_id: str, of: Selection, limit: int, *, as_json: bool) -> None:
    found = settings()
    rows = admin.usage(found, client_id, limit=limit, of=of)
    total = admin.usage_total(found, client_id, of)
    if as_json:
        emit_json({"rows": rows, "total": {"rows": total.rows, "credits": total.credits}})
        return
    columns = ("occurred at (UTC)", "correlation id", "SKU", "quantity", "credits")
    lines = [(row.occurred_at, printable(row.correlation_id), _sold(row), row.quantity, row.credits) for row in rows]
    table(None, columns, lines, numbers=2)
    click.echo(f"{len(rows):,} of {total.rows:,} rows shown; {total.credits:,} credits in all")


def _sums(found: UsageSums, *, as_json: bool) -> None:
    if as_json:
        of = dataclasses.asdict(found.of)
        emit_json(
            {
                "client_id": found.client_id,
                "from": of.pop("start"),
                "to": of.pop("end"),
                **of,
                "by": found.by,
                "groups": [_plain(found, group) for group in found.groups],
                "group_count": found.group_count,
                "total": dataclasses.asdict(found.total),
            }
        )
        return
    dry = bool(found.total.dry_rows)
    numbers = (
        ("lines", "of dry runs", "quantity", "of dry runs", "credits") if dry else ("lines", "quantity", "credits")
    )
    rows = [(_called(found, group), *_numbers(group, dry=dry)) for group in found.groups]
    click.echo(_title(found))  # above the table, which would fold it to its own width
    table(None, (_HEADINGS[found.by], *numbers), rows, numbers=len(numbers))
    if len(found.groups) < found.group_count:
        click.echo(f"{len(found.groups):,} of {found.group_count:,} groups shown; the sums below are of all")
    total = found.total
    apart = f", of dry runs {total.dry_rows:,} lines, {total.dry_quantity:,} units" if dry else ""
    click.echo(f"{total.rows:,} lines, {total.quantity:,} units, {total.credits:,} credits in all{apart}")


def _plain(found: UsageSums, group: Group) -> dict[str, object]:
    sums = dataclasses.asdict(group)
    name = sums.pop("name")
    unit = {"unit": found.units.get(str(name), "")} if found.by == "sku" else {}
    return {found.by: name.date().isoformat() if found.by == "day" else name, **unit, **sums}


def _numbers(group: Group, *, dry: bool) -> tuple[int, ...]:
    if dry:
        return (group.rows, group.quantity, group.dry_rows, group.dry_quantity, group.credits)
    return (group.rows, group.quantity, group.credits)


def _called(found: UsageSums, group: Group) -> str:
    if isinstance(group.name, datetime):
        return f"{group.name.astimezone(UTC):{'%Y-%m-%d' if found.by == 'day' else '%Y-%m-%d %H:%M'}}"
    unit = found.units.get(group.name, "") if found.by == "sku" else ""
    return printable(f"{group.name} ({unit})" if unit else group.name)


def _title(found: UsageSums) -> str:
    from billing.receipts.wording import title  # noqa: PLC0415 - brings what only people need

    of = found.of
    return title(found.client_id, of.start, of.end, of.correlation_id, of.root_id)


def _sold(row: UsageRow) -> str:
    """Return a row's SKU, with a mark where its run was outside the ceiling."""
    return row.sku if row.mode is None else f"{row.sku} ({row.mode.replace('_', ' ')})"
