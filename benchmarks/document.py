"""`python -m benchmarks.document [BENCH.JSON]`: writes docs/performance.md and its plots from what a run has written.

Ratios are quoted, with the day and the class of machine; no name of a host and no path. A missed mark stands there with
its cause. The pages are written as they will be read: nothing is edited by hand afterwards. A run in part is refused.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import click

from benchmarks import plot, report
from benchmarks.causes import FOUND, explained
from benchmarks.rows import Point, Row
from benchmarks.workers import ROOT

DOCS: Final = ROOT / "docs"
_PAGE: Final = "performance"

HEAD: Final = """# Performance

Made by `make bench DOCUMENT=1`; how each figure is measured: [benchmarks](../benchmarks/README.md). Both sides of each
comparison ran in turns, in one run, on the same servers, so **ratios count**: they travel better than the rates behind
them. Where the disk or the number of cores decides, the cause of a missed mark says so.
"""
_MARKS: Final = """## Marks

The marks were set beforehand. Reached: 1 is just met, 2 is twice as good. A ratio is the median of its rounds' ratios;
the rates beside it are medians of their own, and need not divide to it.
"""
_ALTERNATIVES: Final = """## Alternatives

What teams write first, in the same minute on the same servers. Above 1 ours is faster; below 1 ours is slower, and what
the other lacks says what the difference pays for. Ours charges each run exactly once, admits nobody beyond their
credits, gives back what failed, and keeps a row for every charge.
"""
_GROWTH: Final = """## Growth

Each figure is the ratio to the smallest size. A connection more does not make Redis faster: it serves one command at a
time, so the wait of the slowest hundredth grows with the connections, on one bucket as on many. Sizes took turns, but
those of clients, which came one after the other: their time is over that of a `DECR` of the same moment.
"""
_MISSED: Final = f"""## Marks that are missed

{FOUND}
"""


@click.command()
@click.argument(
    "bench", type=click.Path(exists=True, dir_okay=False, path_type=Path), default=Path("build/bench/bench.json")
)
@click.option("--docs", type=click.Path(file_okay=False, path_type=Path), default=DOCS, help="Where the page goes.")
def main(bench: Path, docs: Path) -> None:
    """Write the page of the measurements in BENCH (build/bench/bench.json) and its plots."""
    try:
        write(json.loads(bench.read_text("utf-8")), docs)
    except NotWhole as partial:
        raise click.ClickException(f"{bench}: {partial}") from partial


class NotWhole(ValueError):
    """A run that the page of the documentation cannot be made of, in one line."""


def refuse_a_part(measured: Mapping[str, Any]) -> None:
    """Raise `NotWhole` unless the run was of every group, with all rounds, by these benchmarks."""
    if measured.get("version") != report.VERSION:
        raise NotWhole(f"version {measured.get('version')} must be {report.VERSION}: measure again (make bench)")
    if measured["quick"]:
        raise NotWhole("quick: true must be false: the page is of a whole run (make bench without QUICK)")
    if measured["missing"]:
        groups = ", ".join(measured["missing"])
        raise NotWhole(f"missing: {groups}: must be none: the page is of a whole run (make bench without ARGS)")


def write(measured: Mapping[str, Any], docs: Path) -> None:
    """Write the page and its plots; plots of an earlier run go. Raises `NotWhole`."""
    refuse_a_part(measured)
    # By the causes that are known now: one may have been found since.
    rows, title = explained(rows_of(measured)), title_of(measured)
    plots = {"marks": plot.marks(rows, title=f"Marks reached, {title}")}
    if any(row.lacks and row.value for row in rows):
        plots["alternatives"] = plot.alternatives(rows, title=f"Ours against the alternatives, {title}")
    plots |= {f"growth-{sizes}": made for sizes, made in plot.growths(rows, title=f"Growth, {title}").items()}
    folder = docs / _PAGE
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    for name, made in plots.items():
        (folder / f"{name}.svg").write_bytes(made)
    (docs / f"{_PAGE}.md").write_text(page(measured, rows, list(plots)), "utf-8")


def rows_of(measured: Mapping[str, Any]) -> list[Row]:
    """Return the rows of a run's JSON."""
    found = []
    for written in measured["rows"]:
        fields = {name: value for name, value in written.items() if name not in {"group", "score"}}
        fields["series"] = tuple(Point(**point) for point in fields["series"])
        found.append(Row(**fields))
    return found


def title_of(measured: Mapping[str, Any]) -> str:
    """Return the day and the class of machine."""
    machine = measured["machine"]
    return f"{measured['measured_at'][:10]}, {machine['cores']} cores, Python {machine['python']}"


def page(measured: Mapping[str, Any], rows: Sequence[Row], plots: Sequence[str]) -> str:
    """Return the page."""
    parts = [HEAD, _machine(measured), _MARKS, _picture(plots, "marks", "Marks reached"), _marks(rows)]
    missed = [row for row in rows if row.met is False]
    if missed:
        parts += [_MISSED, _table(("row", "measured", "mark", "cause"), [_missed(row) for row in missed])]
    if any(row.lacks for row in rows):
        parts += [_ALTERNATIVES, _picture(plots, "alternatives", "How many times as fast ours is"), _alternatives(rows)]
    grown = [row for row in rows if row.series]
    if grown:
        parts.append(_GROWTH)
        for sizes in dict.fromkeys(row.sizes for row in grown):
            parts.append(f"### By {sizes}\n")
            parts.append(_picture(plots, f"growth-{sizes}", f"Growth by {sizes}"))
            parts.append(_table(("what", "of", "size: ratio"), [_grown(row) for row in grown if row.sizes == sizes]))
    rest = [row for row in rows if row.mark is None and not row.lacks and not row.series]
    if rest:
        parts.append("## For planning\n")
        parts.append(_table(("what", "measured", "against"), [(row.name, _measured(row), row.against) for row in rest]))
    return "\n".join(parts)


def _machine(measured: Mapping[str, Any]) -> str:
    machine = measured["machine"]
    libraries = ", ".join(f"{name} {version}" for name, version in machine["libraries"].items() if version)
    memory = round(machine["memory_bytes"] / 2**30)
    servers = ", ".join(f"{name} {version}" for name, version in machine["servers"].items())
    return (
        f"Measured on {measured['measured_at'][:10]}, at commit `{measured['commit'] or 'unknown'}`: "
        f"{machine['system']}, {machine['cores']} cores, {memory} GB, a flush of its disk "
        f"{report.figure(machine['flush_microseconds'])} µs, load {report.figure(machine['load'])} at the end; "
        f"{servers}; Python {machine['python']}, {libraries}.\n"
    )


def _marks(rows: Sequence[Row]) -> str:
    cells = []
    for row in rows:
        if row.mark is None:
            continue
        reached = "" if row.score is None else f"{row.score:.2f}"
        met = {True: "yes", False: "**no**", None: "not measured"}[row.met]
        measured = _measured(row) if row.met is not None else ""
        cells.append((row.name, measured, report.figure(row.mark), reached, met, row.against))
    return _table(("what", "measured", "mark", "reached", "met", "against"), cells)


def _alternatives(rows: Sequence[Row]) -> str:
    found = [row for row in rows if row.lacks]
    cells = [
        (row.name, report.figure(row.value), row.lacks, row.against)
        if row.value
        else (row.name, row.against, row.lacks, "")
        for row in found
    ]
    return _table(("alternative", "ours, x the rate", "what it lacks", "against"), cells)


def _grown(row: Row) -> tuple[str, ...]:
    return row.name.partition(", by ")[0], row.unit.removeprefix("x the "), report.steps(row)


def _missed(row: Row) -> tuple[str, ...]:
    return row.name, _measured(row), report.figure(row.mark or 0), row.cause


def _measured(row: Row) -> str:
    return f"{report.figure(row.value)} {row.unit}"


def _picture(plots: Sequence[str], name: str, alternative: str) -> str:
    return f"![{alternative}: the table below has the same figures]({_PAGE}/{name}.svg)\n" if name in plots else ""


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return a table of Markdown; a cell's own bars and markup stand for themselves."""
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return text if text.startswith("**") else re.sub(r"([|*_<`\[])", r"\\\1", text)


if __name__ == "__main__":
    main(prog_name="python -m benchmarks.document")
