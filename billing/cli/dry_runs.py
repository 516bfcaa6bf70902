"""`billing dry-run`."""

from __future__ import annotations

import click

from billing import admin
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option, table

_COLUMNS = ("task", "would be denied for", "runs", "admitted", "denied", "credits")


@click.command(name="dry-run", epilog="Example: billing -A worker_tasks.app dry-run")
@click.option("--reset", is_flag=True, help="Show the counts, and begin anew.")
@json_option
def dry_run(*, reset: bool, as_json: bool) -> None:
    """Show what would have become of the tasks in a dry run: admitted, denied and why, and their cost in credits."""
    found = admin.dry_runs(settings(), reset=reset)
    if as_json:
        emit_json(found)
        return
    rows = [
        (
            counted.task,
            ", ".join(f"{reason} {number:,}" for reason, number in counted.denied.items()),
            counted.runs,
            counted.admitted,
            sum(counted.denied.values()),
            counted.credits,
        )
        for counted in found
    ]
    table(None, _COLUMNS, rows, numbers=4, nothing="no dry runs are recorded")
