"""`billing rebuild`."""

from __future__ import annotations

import time
from typing import Final

import click

from billing import admin
from billing.admin.rebuilding import WAIT_SECONDS, WAIT_SECONDS_MAX, Rebuilding
from billing.cli.completing import clients
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option
from billing.core.errors import InvalidValue

#: After so long without a worker at it, it is said what to do.
_PATIENCE_SECONDS: Final = 5.0
_SHARDS_NAMED: Final = 10


@click.command(epilog="Example: billing rebuild acme")
@click.argument("client_id", metavar="[CLIENT]", required=False, shell_complete=clients)
@click.option("--all", "all_", is_flag=True, help="Rebuild the buckets of all clients.")
@click.option(
    "--wait",
    "wait_seconds",
    type=click.FloatRange(0, WAIT_SECONDS_MAX),
    default=WAIT_SECONDS,
    show_default=True,
    help="Seconds to wait for it at most; 0: only ask.",
)
@json_option
def rebuild(client_id: str | None, all_: bool, wait_seconds: float, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Have buckets rebuilt from the ledger and the log: those of CLIENT's shard, or --all.

    Safe at any time, and safe to repeat. A fulfillment worker does it; until it is done nothing is admitted on the
    shard, for a third of a lease and some seconds. Exit code 1 if it is not done in time; it stays asked for.
    """
    if (client_id is None) is not all_:
        raise InvalidValue("client_id", client_id, "name a client, or give --all")
    progress = _Progress(to_stderr=as_json)
    found = admin.rebuild(settings(), client_id, wait_seconds=wait_seconds, tell=progress.tell)
    if as_json:
        emit_json({"shards": found.shards, "waiting": found.waiting, "silent": found.silent, "done": found.done})
    else:
        click.echo(_last_line(found, wait_seconds))
    if wait_seconds and not found.done:
        click.get_current_context().exit(1)


class _Progress:
    """Prints a line when something has changed."""

    def __init__(self, *, to_stderr: bool) -> None:
        self._to_stderr = to_stderr
        self._begun = time.monotonic()
        self._told = ""
        self._idle_since = self._begun

    def tell(self, seen: Rebuilding) -> None:
        """Take a look at how far it is."""
        now = time.monotonic()
        if seen.led:
            self._idle_since = now
        if seen.done:
            return
        done, total = len(seen.shards) - len(seen.waiting), len(seen.shards)
        if seen.led:
            text = f"{done} of {_shards(total)} rebuilt; a fulfillment worker is at it"
        elif now - self._idle_since < _PATIENCE_SECONDS:
            text = f"{done} of {_shards(total)} rebuilt; asked for: {_named(seen.waiting)}"
        else:
            text = f"{done} of {_shards(total)} rebuilt; no worker is at it: {_ADVICE}"
        if text != self._told:
            self._told = text
            click.echo(f"{now - self._begun:6.1f} s  {text}", err=self._to_stderr)


_ADVICE: Final = "start one: celery -A <app> worker --fulfillment -P solo"


def _last_line(found: Rebuilding, wait_seconds: float) -> str:
    if not found.shards:
        return "there are no clients, and nothing to rebuild"
    if found.done:
        return f"{_shards(len(found.shards))} rebuilt from ledger and log"
    if not wait_seconds:
        return f"asked for: {_named(found.waiting)}; a fulfillment worker rebuilds it"
    still = f"not done within {wait_seconds:g} s, and still asked for: {_named(found.waiting)}"
    if found.silent:
        return f"{still}; Redis does not answer for {_named(found.silent)}: start its server (see: billing doctor)"
    return f"{still}; {'its log says why' if found.led else _ADVICE}"


def _shards(count: int) -> str:
    return f"{count} shard{'' if count == 1 else 's'}"


def _named(shards: tuple[int, ...]) -> str:
    more = f" and {len(shards) - _SHARDS_NAMED} more" if len(shards) > _SHARDS_NAMED else ""
    return f"shard{'' if len(shards) == 1 else 's'} {', '.join(map(str, shards[:_SHARDS_NAMED]))}{more}"
