"""`make fuzz`: every target under atheris, each for a bounded time in a process of its own; a table at the end.

What breaks a law is written to a file, with the one line that replays it. `--replay FILE TARGET` does that: it needs no
atheris. Exit code 1 when something was found, 2 when atheris is missing: it has wheels for Linux alone.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

from tests.fuzz import report
from tests.fuzz.target import TARGETS, load

MISSING: Final = "atheris is not installed (it has wheels for Linux alone): nothing was fuzzed"
#: Beyond its own time: imports under instrumentation, and the last input.
_MORE_SECONDS: Final = 120
_PROGRAM: Final = "python -m tests.fuzz"


def main() -> int:
    """Fuzz what the command line asks for."""
    given = _arguments()
    if given.replay is not None:
        load(given.targets[0]).check(given.replay.read_bytes())
        _say(f"{given.targets[0]} holds for {given.replay}")
        return 0
    if importlib.util.find_spec("atheris") is None:
        _say(MISSING)
        return 2
    names = [name for name in TARGETS if not given.targets or name in given.targets]
    with ThreadPoolExecutor(given.processes) as pool:
        outcomes = dict(zip(names, pool.map(lambda name: _fuzz(name, given), names), strict=True))
    _say(f"{'target':<18}{'executions':>12}{'edges':>8}{'features':>10}  findings")
    for name, outcome in outcomes.items():
        _say(f"{name:<18}{outcome.executions:>12,}{outcome.edges:>8,}{outcome.features:>10,}  {outcome.reason or '-'}")
    findings = {name: outcome for name, outcome in outcomes.items() if outcome.found}
    for name, outcome in findings.items():
        _say(f"replay: {_PROGRAM} {name} --replay {outcome.found}")
    return 1 if findings else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=_PROGRAM, description=__doc__)
    parser.add_argument("targets", nargs="*", choices=[*TARGETS, []], metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=30, help="for each target")
    parser.add_argument(
        "--runs", type=int, default=-1, help="for each target at most; -1: as many as there is time for"
    )
    parser.add_argument("--processes", type=int, default=1, help="targets at once")
    parser.add_argument("--directory", type=Path, default=Path("build/fuzz"), help="where inputs are kept")
    parser.add_argument("--replay", type=Path, help="a file that was found: hold it to the law of the one TARGET")
    given = parser.parse_args()
    if given.replay is not None and len(given.targets) != 1:
        parser.error("--replay: name the one TARGET that it was found for")
    return given


def _fuzz(name: str, given: argparse.Namespace) -> report.Outcome:
    """Run one target to its end, and keep what it printed beside its inputs."""
    directory: Path = given.directory / name
    directory.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "tests.fuzz.running", name, str(directory), str(given.seconds), str(given.runs)]
    with tempfile.TemporaryFile() as printed:
        # An input may be a command's; what it would read from a terminal is not there.
        child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=printed, stderr=subprocess.STDOUT)
        try:
            code = child.wait(given.seconds + _MORE_SECONDS)
        except subprocess.TimeoutExpired:
            code = -1
        finally:
            child.kill()
            child.wait()
        printed.seek(0)
        text = printed.read().decode("utf-8", "replace")
    (directory / "printed.txt").write_text(text, "utf-8")
    outcome = report.read(text)
    if code != 0 and not outcome.found:
        last = (text.strip().splitlines() or ["it printed nothing"])[-1]
        raise SystemExit(f"{name}: {'could not be fuzzed' if code > 0 else 'did not end by itself'}: {last}")
    return outcome


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - it is a command


if __name__ == "__main__":
    sys.exit(main())
