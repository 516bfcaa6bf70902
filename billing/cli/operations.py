"""`billing migrate` and `billing doctor`."""

from __future__ import annotations

import click

from billing.cli.context import find_app, settings
from billing.cli.output import emit_json, json_option, table
from billing.observability.doctor.examine import examine
from billing.observability.doctor.finding import Verdict
from billing.schema import migrate as schema
from billing.task.runtime import Runtime


@click.command(epilog="Example: billing migrate --roles")
@click.option("--roles", is_flag=True, help="Make the group roles for consumers, fleets and readers, too.")
@json_option
def migrate(roles: bool, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Bring the database to this version, and make the usage history's months for a year ahead.

    The login that migrates owns the tables. With --roles it needs CREATEROLE, once; what the roles may do is renewed
    by each later migration.
    """
    applied = schema.migrate(settings(), with_roles=roles)
    if as_json:
        emit_json(applied)
        return
    for name in applied:
        click.echo(f"made {name}")
    click.echo(f"database is at {schema.head()}")


@click.command(epilog="Example: billing -A worker_tasks.app doctor")
@json_option
def doctor(as_json: bool) -> None:  # noqa: FBT001
    """Check every part that billing stands on. Exit code 1 when one fails."""
    found = settings()
    runtime = Runtime(lambda: found)
    try:
        findings = examine(runtime, find_app())
    finally:
        runtime.close()
    if as_json:
        emit_json(findings)
    else:
        rows = [(f.part, f.verdict.value, f.seen, f.advice) for f in findings]
        table(None, ("part", "verdict", "seen", "what to do"), rows)
    if any(finding.verdict is Verdict.FAIL for finding in findings):
        click.get_current_context().exit(1)
