"""`python -m benchmarks [GROUP …]`: starts the servers, runs the groups, prints the table, writes JSON and plot.

`QUICK=1` makes fewer rounds. The exit code is 0 also when a mark is missed: a benchmark informs; it is 1 when a group
could not run. A group whose server or tool is not installed is skipped with one line.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console

from benchmarks import document, plot, report
from benchmarks.causes import explained
from benchmarks.rows import Row
from benchmarks.servers import Servers
from billing.embedded.server import NotInstalled

#: Group → its module, in the order in which they run.
GROUPS: Final = {
    "import": "benchmarks.imports",
    "buckets": "benchmarks.buckets",
    "alternatives": "benchmarks.alternatives",
    "cost": "benchmarks.cost",
    "recovery": "benchmarks.recovery",
    "usage-log": "benchmarks.usage_log",
    "consumer": "benchmarks.consumer",
    "consumer-memory": "benchmarks.consumer_memory",
    "growth": "benchmarks.growth",
    "sync-plan": "benchmarks.sync_plan",
    "sync-push": "benchmarks.sync_push",
    "tasks": "benchmarks.tasks",
    "weight": "benchmarks.weight",
}
#: A name for several: what concerns the fulfillment log.
TOGETHER: Final = {"log": ("usage-log", "consumer", "consumer-memory", "growth")}


@click.command()
@click.argument("groups", nargs=-1, type=click.Choice([*GROUPS, *TOGETHER]))
@click.option(
    "--output",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("build/bench"),
    show_default=True,
    help="Where bench.json and bench.svg go.",
)
@click.option("--document", "documented", is_flag=True, help="Write docs/performance.md and its plots anew.")
def main(groups: Sequence[str], output: Path, *, documented: bool) -> None:
    """Measure, as ratios to plain Celery, Redis and PostgreSQL. Without GROUPS all of them run."""
    console = Console(stderr=True)
    quick = os.environ.get("QUICK", "") not in ("", "0")
    if documented and (quick or groups):
        raise click.UsageError("--document: the page is of a whole run: give neither QUICK nor GROUPS")
    # What is lost here is lost on purpose, and recovery says so of each shard.
    logging.getLogger("billing").setLevel(logging.ERROR)
    failed = False
    measured: dict[str, Sequence[Row]] = {}
    with Servers(quick=quick) as servers:
        versions = servers.versions()
        console.print(f"servers: {', '.join(server.name for server in servers.servers)}")
        for group in chosen(groups):
            started = datetime.now(UTC)
            try:
                measured[group] = importlib.import_module(GROUPS[group]).rows(servers)
            except NotInstalled as missing:
                console.print(f"{group}: skipped: {missing}", markup=False, highlight=False)
            except Exception:  # noqa: BLE001 - one group that cannot run hides no other
                failed = True
                console.print_exception()
            else:
                seconds = (datetime.now(UTC) - started).total_seconds()
                console.print(f"{group}: {seconds:.0f} s", markup=False, highlight=False)
            servers.empty()
    written = publish(measured, output=output, quick=quick, servers=versions)
    if documented:
        try:
            document.write(json.loads(json.dumps(written)), document.DOCS)
        except document.NotWhole as partial:
            console.print(f"not written: docs/performance.md: {partial}", markup=False, highlight=False)
            raise SystemExit(1) from partial
        console.print("written: docs/performance.md, docs/performance/")
    raise SystemExit(int(failed))


def chosen(asked: Sequence[str]) -> list[str]:
    """Return the groups that were asked for, each once, in the order in which they run; all of them without any."""
    wanted = {group for name in asked for group in TOGETHER.get(name, (name,))}
    return [group for group in GROUPS if not asked or group in wanted]


def publish(
    measured: Mapping[str, Sequence[Row]], *, output: Path, quick: bool, servers: Mapping[str, str]
) -> dict[str, Any]:
    """Print the tables, write `bench.json` and `bench.svg`, and return what the JSON holds."""
    console = Console(width=None if os.isatty(1) else 160)
    groups = {group: explained(rows) for group, rows in measured.items()}
    rows = [row for group in groups.values() for row in group]
    now = datetime.now(UTC)
    machine = report.machine(servers)
    missing = [group for group in GROUPS if group not in measured]
    console.print(report.table(rows))
    if any(row.lacks for row in rows):
        console.print(report.alternatives(rows))
    if any(row.series for row in rows):
        console.print(report.growths(rows))
    for row in rows:
        if row.mark is not None and row.met is None:
            console.print(f"not measured: {row.name}: {row.against}", markup=False, highlight=False)
    output.mkdir(parents=True, exist_ok=True)
    written = report.document(groups, quick=quick, now=now, machine=machine, missing=missing)
    (output / "bench.json").write_text(json.dumps(written, indent=2) + "\n")
    title = f"celery-billing, {now:%Y-%m-%d}, {machine['cores']} cores, Python {machine['python']}"
    (output / "bench.svg").write_bytes(plot.marks(rows, title=title))
    console.print(f"written: {output / 'bench.json'}, {output / 'bench.svg'}", markup=False, highlight=False)
    return written


if __name__ == "__main__":
    main(prog_name="python -m benchmarks")
