"""`billing sync resolve`: a person says what becomes of an increment in doubt."""

from __future__ import annotations

from typing import Final, get_args

import click

from billing import admin
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option
from billing.core.printable import printable
from billing.sinks.sync.resolving import ResolvedAs

_THEN: Final = {
    "confirmed": "it is on its invoice",
    "resend": "the next plan sends it under another identifier (next: billing sync plan)",
    "write-off": "it is on no invoice",
}


@click.command(epilog='Example: billing sync resolve 1204 --as resend --reason "Stripe has no event in its minute"')
@click.argument("increment_id", metavar="INCREMENT", type=int)
@click.option(
    "--as",
    "resolution",
    type=click.Choice(get_args(ResolvedAs)),
    required=True,
    help="It was seen at Stripe; it is not there; it is not to be billed.",
)
@click.option("--reason", required=True, help="Why; kept with the increment for ever.")
@json_option
def resolve(increment_id: int, resolution: ResolvedAs, reason: str, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Say what becomes of an increment that is rejected, quarantined or ambiguous. Safe to repeat.

    Look at Stripe first: what is there and is sent again is billed twice. See: billing sync show INCREMENT.
    """
    found = admin.sync_resolve(settings(), increment_id, resolution, reason)
    if as_json:
        emit_json(found)
        return
    named = f"increment {found.increment_id} of client {printable(found.client_id)}"
    click.echo(f"{named} is {found.state.value}: {_THEN[resolution]}")
