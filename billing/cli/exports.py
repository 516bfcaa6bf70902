"""`billing client export`."""

from __future__ import annotations

from pathlib import Path

import click

from billing.cli.completing import client_argument
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option
from billing.cli.progress import progress


@click.command(epilog="Example: billing client export acme --output acme.zip")
@client_argument
@click.option("--output", type=click.Path(path_type=Path), required=True, help="The zip to write, whole or not at all.")
@json_option
def export(client_id: str, output: Path, as_json: bool) -> None:  # noqa: FBT001 - click gives flags by name
    """Write all data of a client into a zip: JSON lines per table, and contents.json, which lists them.

    Only its owner may read the file. The arguments of parked tasks are in it; secrets are not.
    """
    from billing.receipts.export import write_export  # noqa: PLC0415 - brings what only this command needs

    with progress(wanted=not as_json) as tell:
        written = write_export(
            settings(), client_id, output, tell=tell and (lambda rows: tell(f"{rows:,} rows of {client_id}"))
        )
    count = sum(written.rows.values())
    if as_json:
        emit_json({"path": str(written.path), "rows": count, "files": written.rows})
    else:
        click.echo(f"{output}: {count:,} rows in {len(written.rows)} files")
