"""`billing up` and `billing demo`: servers and a fleet on this machine, without root and without containers."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Final

import click

from billing.cli.output import emit_json, json_option
from billing.connections import connection_file
from billing.core.errors import Fatal
from billing.embedded.fleet import Fleet, FleetPlan
from billing.embedded.lifetime import clean_stop, end_with_parent
from billing.embedded.stack import Stack
from billing.integration.configuration import read
from billing.schema.migrate import migrate

_DIRECTORY: Final = Path(".billing")
_APP: Final = "worker_tasks.app"
_POLL_SECONDS: Final = 0.5


@click.command(epilog="Example: billing up --services &")
@click.option("--services", is_flag=True, help="Start the servers only, no workers.")
@click.option("--workers", type=click.IntRange(1, 32), default=1, show_default=True, help="Task workers.")
@click.option("--children", type=click.IntRange(1, 64), default=2, show_default=True, help="Processes per worker.")
@click.option("--end-with-parent", "ends_with_parent", is_flag=True, help="Stop when the calling process ends.")
@json_option
def up(*, services: bool, workers: int, children: int, ends_with_parent: bool, as_json: bool) -> None:
    """Run servers, workers, consumer, beat and Flower until Ctrl-C. Data stay in .billing/."""
    app = click.get_current_context().meta.get("billing.app") or _APP
    if not services:
        _require_app(str(app))
    if ends_with_parent:
        end_with_parent()
    _DIRECTORY.mkdir(mode=0o700, exist_ok=True)
    with contextlib.ExitStack() as stack:
        stack.enter_context(clean_stop())
        servers = stack.enter_context(Stack(_DIRECTORY))
        os.environ.update(servers.endpoints.environment())
        migrate(read({}))
        connection_file.write(servers.endpoints.environment())
        stack.callback(connection_file.remove)
        addresses = servers.endpoints.addresses()
        if not as_json:
            click.echo(servers.describe())
        fleet = None
        if not services:
            plan = FleetPlan(app=str(app), workers=workers, children=children)
            fleet = Fleet(plan, servers.endpoints, _DIRECTORY)
            stack.callback(fleet.stop)
            fleet.start()
            addresses["Flower"] = str(fleet.flower_url)
            if not as_json:
                click.echo(f"{'Flower':<16} {fleet.flower_url}")
        if as_json:
            emit_json(addresses)
        else:
            click.echo("ready; other commands in this directory use these servers; Ctrl-C stops everything")
        _watch(servers, fleet)


@click.command(epilog="Example: billing demo")
@json_option
def demo(*, as_json: bool) -> None:
    """Run a billed fleet on real work for about a minute, kill a worker on the way, and check the books."""
    _require_app(_APP)
    end_with_parent()
    from billing.embedded.demo.run import run  # noqa: PLC0415 - brings the whole fleet in

    if not as_json:
        sys.exit(run())
    from rich.console import Console  # noqa: PLC0415 - slow to import

    from billing.embedded.demo import report  # noqa: PLC0415 - see above

    sys.exit(run(Console(stderr=True), tell=lambda *found: emit_json(report.as_json(*found))))


def _watch(servers: Stack, fleet: Fleet | None) -> None:
    """Wait until something ends that should not."""
    while True:
        time.sleep(_POLL_SECONDS)
        for server in servers.servers:
            if not server.running:
                raise Fatal(f"{server.name}: ended by itself; see its log in {servers.directory}")
        for child in fleet.dead() if fleet else ():
            raise Fatal(f"{child.name}: ended by itself with code {child.returncode}; see {child.log}")


def _require_app(app: str) -> None:
    """Refuse early, in one line, where the fleet is not importable: it ships with the checkout, not with the wheel."""
    sys.path.insert(0, str(Path.cwd()))
    if importlib.util.find_spec(app.split(".", 1)[0].partition(":")[0]) is None:
        raise Fatal(f"--app: {app!r}: is not importable from here: run this in the project's checkout")
