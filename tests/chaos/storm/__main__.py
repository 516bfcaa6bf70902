"""`python -m tests.chaos.storm`: a storm of some minutes, its report printed and written; exit code 1 if a law breaks.

The directory of a storm that broke a law is kept, with every log; its seed plans the same faults again.
"""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from pathlib import Path
from typing import Final

from billing.embedded.lifetime import clean_stop
from tests.chaos.storm.load import Size
from tests.chaos.storm.plan import KINDS
from tests.chaos.storm.run import Storm, run

REPORTS: Final = Path("build") / "chaos"
SIZE: Final = Size(clients=300, short=100, rate=60.0)


def main() -> int:
    """Run a storm; return the exit code."""
    given = _arguments()
    seed = secrets.randbelow(2**32) if given.seed is None else given.seed
    directory = Path(tempfile.mkdtemp(prefix=f"chaos-{seed}-"))
    directory.chmod(0o711)  # PostgreSQL's own user must reach what is below
    kinds = [name for name in KINDS if not given.only or any(part in name for part in given.only)]
    storm = Storm(seed=seed, seconds=60 * given.minutes, size=SIZE, workers=given.workers, kinds=kinds)
    with clean_stop():
        report = run(storm, directory, _print)
    report.write(REPORTS)
    _print("\n" + report.markdown())
    for error in report.errors:
        _print(error)
    if report.ok:
        shutil.rmtree(directory, ignore_errors=True)
        return 0
    again = f"make chaos MINUTES={given.minutes:g} SEED={seed}"
    _print(f"laws are broken; the same faults again: {again}; logs and answers: {directory}")
    return 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long faults are injected")
    parser.add_argument("--seed", type=int, help="what plans them; chosen and printed without one")
    parser.add_argument("--workers", type=int, default=3, help="prefork workers, of two children each")
    parser.add_argument("--only", action="append", default=[], help="kinds of faults whose name has this")
    return parser.parse_args()


def _print(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
