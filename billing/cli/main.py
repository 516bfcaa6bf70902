"""The command group. Commands are imported when they are called, so that `celery` itself starts as fast as before.

An error is one line on standard error and an exit code: 1 when a check does not hold or a server does not answer,
2 for bad usage. There is never a traceback for what a user or a server did.
"""

from __future__ import annotations

import importlib
from typing import Any, Final

import click

from billing.core.errors import BillingError, Rejected

#: Command → where it is. The order is that of `--help`: the way of a newcomer.
COMMANDS: Final = {
    "up": "billing.cli.stack:up",
    "demo": "billing.cli.stack:demo",
    "replay": "billing.cli.replay:replay",
    "migrate": "billing.cli.operations:migrate",
    "doctor": "billing.cli.operations:doctor",
    "client": "billing.cli.clients:client",
    "price": "billing.cli.prices:price",
    "meter": "billing.cli.meters:meter",
    "grant": "billing.cli.money:grant",
    "void": "billing.cli.money:void",
    "adjust": "billing.cli.adjust:adjust",
    "allowance": "billing.cli.allowances:allowance",
    "top-up": "billing.cli.top_ups:top_up",
    "balance": "billing.cli.money:balance",
    "quote": "billing.cli.quote:quote",
    "dry-run": "billing.cli.dry_runs:dry_run",
    "usage": "billing.cli.usage:usage",
    "partitions": "billing.cli.partitions:partitions",
    "parked": "billing.cli.parked:parked",
    "dead-letters": "billing.cli.dead_letters:dead_letters",
    "alerts": "billing.cli.alerts:alerts",
    "reconcile": "billing.cli.reconcile:reconcile",
    "rebuild": "billing.cli.rebuild:rebuild",
    "receipt": "billing.cli.receipt:receipt",
    "sync": "billing.cli.sync:sync",
    "stripe": "billing.cli.stripe:stripe",
    "completion": "billing.cli.completing:completion",
}


class Commands(click.Group):
    """A group that imports a command when it is asked for, and turns billing's errors into one line."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002 - the signature is click's
        """Return the names of the commands, in the newcomer's order."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002 - click's
        """Import and return a command."""
        where = COMMANDS.get(cmd_name)
        if where is None:
            return None
        module, _, name = where.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command; an error of billing's becomes one line and an exit code."""
        try:
            return super().invoke(ctx)
        except BillingError as error:
            click.secho(f"Error: {error}", fg="red", err=True)
            ctx.exit(2 if isinstance(error, Rejected) else 1)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: billing -A worker_tasks.app balance acme",
)
@click.option("-A", "--app", "app", envvar="BILLING_APP", help="The Celery app whose settings count (package.module).")
@click.pass_context
def billing(ctx: click.Context, app: str | None) -> None:
    """Usage-based billing for Celery fleets: clients, prices, grants, balances, usage."""
    # Inside `celery -A … billing …` the app is that of Celery's own option.
    celery_app = getattr(ctx.obj, "app", None) if app is None else None
    ctx.meta["billing.app"] = celery_app or app


def main() -> None:
    """Run the command `billing`."""
    billing(prog_name="billing")


if __name__ == "__main__":
    main()
