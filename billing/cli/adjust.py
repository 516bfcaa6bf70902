"""`billing adjust credits|usage`."""

from __future__ import annotations

import click

from billing import admin
from billing.cli.amount import NEGATIVE_NUMBERS, SIGNED_CREDITS
from billing.cli.changes import applied_text, print_change
from billing.cli.completing import client_argument
from billing.cli.context import settings
from billing.cli.money import print_grant
from billing.cli.output import emit_json, json_option
from billing.ledger.grants import GrantRow


@click.group(epilog="Example: billing adjust credits acme -250 --key ticket-77")
def adjust() -> None:
    """Correct what a client has."""


@adjust.command(
    "credits",
    context_settings=NEGATIVE_NUMBERS,
    epilog="Example: billing adjust credits acme -250 --key ticket-77 --reason 'granted twice'",
)
@client_argument
@click.argument("amount", type=SIGNED_CREDITS)
@click.option("--key", default=None, help="Makes the adjustment idempotent: the same key is the same adjustment.")
@click.option("--reason", default="", help="Why, for the ledger.")
@json_option
def adjust_credits(client_id: str, amount: int, key: str | None, reason: str, as_json: bool) -> None:  # noqa: FBT001
    """Give a client credits, or take some away: what it does not have becomes debt."""
    row, applied = admin.adjust_credits(settings(), client_id, amount, key=key, reason=reason)
    if isinstance(row, GrantRow):
        print_grant(row, applied=applied, as_json=as_json)
    else:
        print_change(row, f"{client_id} is adjusted by {amount:,} credits", applied=applied, as_json=as_json)


@adjust.command(
    "usage",
    context_settings=NEGATIVE_NUMBERS,
    epilog="Example: billing adjust usage 01a0…-…:0 --credits -25 --reason 'the page was empty' --key ticket-78",
)
@click.argument("run", metavar="RUN_ID[:LINE]")
@click.option(
    "--credits", "credits_", type=SIGNED_CREDITS, required=True, help="Below 0: return; above 0: charge more."
)
@click.option("--reason", required=True, help="Why; it is kept with the correction.")
@click.option("--key", default=None, help="Makes the correction idempotent: the same key is the same correction.")
@click.option("--again", is_flag=True, help="Also if the line was corrected in this direction before.")
@json_option
def adjust_usage(run: str, credits_: int, reason: str, key: str | None, again: bool, as_json: bool) -> None:  # noqa: FBT001 - click gives options by name
    """Correct what a run was charged: a row that names it is added, and its grants are paid back, or pay.

    All corrections of a line together return at most what it was charged, and charge at most as much once more. RUN_ID
    and LINE are in `billing usage CLIENT --json`, and in receipts as JSON and CSV.
    """
    found, applied = admin.adjust_usage(settings(), run, credits_, reason=reason, key=key, again=again)
    if as_json:
        emit_json({**{name: getattr(found, name) for name in _PRINTED}, "applied": applied})
        return
    click.echo(
        f"correction {found.run_id}: {found.credits:+,} credits for {found.client_id}; it {applied_text(applied)}"
    )


_PRINTED = ("run_id", "client_id", "corrects", "corrects_line", "credits", "grants", "reason", "key", "created_at")
