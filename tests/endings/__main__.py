"""`make endings`: every ending on every version of Celery, pool and broker; prints, writes JSON, writes the document.

Each version runs in a process of its own virtual environment. `--cells`, `--pools`, `--brokers` and `--versions` choose
some, for whoever works on one; the document is written by a full run alone, and only when every cell ended as it must.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Final

from rich.console import Console

from tests.endings import report
from tests.endings.combination import VERSIONS
from tests.endings.document import PATH, Incomplete, document
from tests.endings.record import Record
from tests.endings.running import add_choices, chosen_places
from tests.endings.themes import CELLS, THEMES

ROOT: Final = Path(__file__).parents[2]
OUTPUT: Final = ROOT / "build" / "endings"
PYTHONS: Final = {"5.7": ROOT / ".venv" / "bin" / "python", "5.6": ROOT / ".venv-5.6" / "bin" / "python"}


def main() -> int:
    """Run; return 1 if a cell did not end as it must, or a version could not be run."""
    parser = argparse.ArgumentParser(prog="python -m tests.endings", description=__doc__)
    add_choices(parser)
    parser.add_argument("--python", nargs=2, action="append", default=[], metavar=("VERSION", "INTERPRETER"))
    arguments = parser.parse_args()
    pythons = PYTHONS | {version: Path(path) for version, path in arguments.python}
    OUTPUT.mkdir(parents=True, exist_ok=True)
    records: list[Record] = []
    failed = False
    for version in VERSIONS:
        if arguments.versions and version not in arguments.versions:
            continue
        output = OUTPUT / f"celery-{version}.json"
        output.unlink(missing_ok=True)
        choices = [part for name in ("cells", "pools", "brokers") for part in _option(name, getattr(arguments, name))]
        command = [pythons[version], "-m", "tests.endings.running", "--output", output, *choices]
        ended = subprocess.run([*map(str, command), "--leases", str(arguments.leases)], cwd=ROOT, check=False)
        failed = failed or ended.returncode != 0
        if output.exists():
            records += [Record.read(fields) for fields in json.loads(output.read_text("utf-8"))]
    console = Console(width=160)
    cells = [cell for cell in CELLS if not arguments.cells or cell.key in arguments.cells]
    report.show(console, cells, chosen_places(arguments), records)
    if failed:
        return 1
    if not (arguments.cells or arguments.pools or arguments.brokers or arguments.versions):
        try:
            PATH.write_text(document(THEMES, records), "utf-8")
        except Incomplete as error:
            console.print(f"the document is not written: {error}", markup=False, highlight=False)
            return 1
        console.print(f"{len(CELLS)} endings, {len(records)} cells: {PATH.relative_to(ROOT)} is written")
    return 0


def _option(name: str, values: list[str]) -> list[str]:
    return [f"--{name}", *values] if values else []


if __name__ == "__main__":
    sys.exit(main())
