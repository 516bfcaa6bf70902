"""`billing top-up set|show|off|answer`."""

from __future__ import annotations

from typing import Any, Final

import click

from billing import admin
from billing.cli.amount import CREDITS, NEGATIVE_NUMBERS
from billing.cli.completing import client_argument
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table
from billing.top_ups.request import RequestRow
from billing.top_ups.rule import Rule

_COLUMNS: Final = (
    *("request", "state", "short", "asked (UTC)", "ended (UTC)", "why"),
    *("available", "credits"),
)


@click.group(name="top-up", epilog="Example: billing top-up set acme 5000 --below-percent 20")
def top_up() -> None:
    """Have the application buy credits for a client whose balance is short."""


@top_up.command(
    name="set", context_settings=NEGATIVE_NUMBERS, epilog="Example: billing top-up set acme 5000 --below-percent 20"
)
@client_argument
@click.argument("credits", type=CREDITS)
@click.option("--below-percent", type=CREDITS, default=None, help="Short below this share of what its grants brought.")
@click.option("--below-credits", type=CREDITS, default=None, help="Short below so many credits.")
@click.option("--cool-off", type=CREDITS, default=3_600, show_default=True, help="Seconds of rest after a grant.")
@click.option("--back-off", type=CREDITS, default=3_600, show_default=True, help="Seconds of rest after a decline ...")
@click.option("--back-off-max", type=CREDITS, default=604_800, show_default=True, help="... doubling up to so many.")
@json_option
def set_(
    *,
    client_id: str,
    credits: int,
    below_percent: int | None,
    below_credits: int | None,
    cool_off: int,
    back_off: int,
    back_off_max: int,
    as_json: bool,
) -> None:
    """Ask for CREDITS whenever the client is short: once, then again after a rest."""
    made = admin.set_top_up(
        settings(),
        client_id,
        credits,
        below_percent=below_percent,
        below_credits=below_credits,
        cool_off_seconds=cool_off,
        back_off_seconds=back_off,
        back_off_max_seconds=back_off_max,
    )
    _print(made, f"top-up of {client_id}: {_said(made)}", as_json=as_json)


@top_up.command(epilog="Example: billing top-up show acme")
@client_argument
@json_option
def show(client_id: str, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Show a client's rule and its newest requests."""
    found = admin.top_up(settings(), client_id)
    _print(found, f"top-up of {client_id}: {'off' if found.rule is None else _said(found.rule)}", as_json=as_json)
    if as_json:
        return
    if found.declines:
        click.echo(f"declined {found.declines} times in a row; nothing is asked before {found.quiet_until}")
    if found.requests:
        table(None, _COLUMNS, [_cells(row) for row in found.requests], numbers=2)


@top_up.command(epilog="Example: billing top-up off acme")
@client_argument
@json_option
def off(client_id: str, as_json: bool) -> None:  # noqa: FBT001
    """Ask for nothing more. What was asked for already may still be granted."""
    removed = admin.remove_top_up(settings(), client_id)
    said = f"top-up of {client_id}: {'off' if removed else 'was off'}"
    _print({"client_id": client_id, "removed": removed}, said, as_json=as_json)


@top_up.command(context_settings=NEGATIVE_NUMBERS, epilog="Example: billing top-up answer 7 granted")
@click.argument("request_id", type=CREDITS)
@click.argument("answer_", metavar="[granted|declined]")
@json_option
def answer(request_id: int, answer_: Any, as_json: bool) -> None:  # noqa: FBT001
    """Answer a request that the application left pending."""
    row = admin.answer_top_up(settings(), request_id, answer_)
    _print(row, f"request {row.request_id} of {row.client_id}: {row.state}", as_json=as_json)


def _said(rule: Rule) -> str:
    below = f"{rule.below_credits:,} credits" if rule.below_credits is not None else f"{rule.below_percent} %"
    rest = f"rests {rule.cool_off_seconds:,} s, after a decline {rule.back_off_seconds:,} s"
    return f"{rule.credits:,} credits when below {below}; {rest} up to {rule.back_off_max_seconds:,} s"


def _cells(row: RequestRow) -> tuple[object, ...]:
    state = f"{row.state} ({row.answer})" if row.answer else row.state
    times = (row.asked_at, row.finished_at)
    return (str(row.request_id), state, row.shortfall, *times, row.reason, row.available, row.credits)


def _print(value: object, said: str, *, as_json: bool) -> None:
    if as_json:
        emit_json(value)
    else:
        click.echo(said)
