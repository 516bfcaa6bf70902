"""A copy of the tree in which mutants are made, one at a time, with servers of its own that stay warm.

Guarantee: the tree that was copied is never touched, and each file is as it was before the next mutant. What pytest
started ends with it, since it is a process group of its own. Every run has a bound (L9).
"""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from billing.embedded.stack import Stack
from tests.mutants.judging import judged
from tests.mutants.mutant import Broken, Mutant, Outcome, Result
from tests.shared_stack import VARIABLE, lend

#: L9: the tests of one mutant, and all selections without any.
MUTANT_SECONDS: Final = 240.0
CHECK_SECONDS: Final = 3_600.0
#: How long a test waits for what a mutant keeps from coming.
LIMIT_SECONDS: Final = "45"


class Workbench:
    """One copy and one stack, for one mutant at a time."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self._directory = Path(tempfile.mkdtemp(prefix="celery-billing-mutants-"))
        self.tree = self._directory / "tree"
        self._stack = Stack(fast=True)

    def __enter__(self) -> Self:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=self._root,
            capture_output=True,
            check=True,
        )
        for name in filter(None, listed.stdout.decode().split("\0")):
            if (self._root / name).is_file():
                (self.tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(self._root / name, self.tree / name)
        self._stack.start()
        lend(self._stack, self._directory / "stack.json")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.stop()
        shutil.rmtree(self._directory, ignore_errors=True)

    def check(self, selections: Iterable[str]) -> None:
        """See that selections pass without any mutant. Raises `Broken`."""
        for command in grouped(sorted(set(selections))):
            code, output = self._pytest(command, CHECK_SECONDS, is_check=True)
            if code != 0:
                raise Broken(f"without any mutant these tests do not pass:\n{output[-6_000:]}")

    def run(self, mutant: Mutant, room: str) -> Outcome:
        """Make a mutant, run its tests, and undo it."""
        began, path = time.monotonic(), self.tree / mutant.file
        changed = mutant.applied_to(path.read_text(encoding="utf-8"))
        if path.suffix == ".py":
            try:
                compile(changed, mutant.file, "exec")
            except SyntaxError as error:
                return Outcome(mutant=mutant, room=room, result=Result.BROKEN, seconds=0.0, by=str(error))

        def run(command: Sequence[str]) -> tuple[int | None, str]:
            with _made(path, changed):
                return self._pytest(command, MUTANT_SECONDS)

        def run_without(command: Sequence[str]) -> tuple[int | None, str]:
            return self._pytest(command, MUTANT_SECONDS)

        result, by = judged(mutant, grouped(mutant.tests), run, run_without)
        return Outcome(mutant=mutant, room=room, result=result, seconds=time.monotonic() - began, by=by)

    def _pytest(self, command: Sequence[str], seconds: float, *, is_check: bool = False) -> tuple[int | None, str]:
        """Return the exit code (None: it did not end in time) and the output."""
        environ = os.environ | {
            "PYTHONPATH": str(self.tree),
            # Examples of Hypothesis are then the same each time, and nothing is skipped.
            "CI": "true",
            VARIABLE: str(self._directory / "stack.json"),
        }
        if not is_check:
            environ |= {"PYTHONDONTWRITEBYTECODE": "1", "TESTS_LIMIT_SECONDS": LIMIT_SECONDS}
        # A basetemp of its own: others' runs, which keep the last three, must not remove what this one writes.
        place = f"--basetemp={self._directory / 'pytest'}"
        options = ["-x", "-q", "-p", "no:cacheprovider", "--tb=short", place, *command]
        with subprocess.Popen(
            [sys.executable, "-m", "pytest", *options],
            cwd=self.tree,
            env=environ,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        ) as process:
            try:
                output, _ = process.communicate(timeout=seconds)
            except subprocess.TimeoutExpired:
                _end(process.pid)
                return None, process.communicate()[0]
            finally:
                _end(process.pid)
        return process.returncode, output


def grouped(selections: Sequence[str]) -> list[list[str]]:
    """Return commands for selections, in their order: those with the same words after ` -k ` go together."""
    commands: dict[str, list[str]] = {}
    for selection in selections:
        where, _, words = selection.partition(" -k ")
        commands.setdefault(words, []).append(where)
    return [[*where, *(["-k", *shlex.split(f"'{words}'")] if words else [])] for words, where in commands.items()]


@contextlib.contextmanager
def _made(path: Path, changed: str) -> Iterator[None]:
    """Within, a file has another text."""
    before, found = path.read_text(encoding="utf-8"), path.stat()
    try:
        path.write_text(changed, encoding="utf-8")
        # The copy was compiled as it was: a change of the same length within the same second would not be seen.
        for cached in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            cached.unlink()
        yield
    finally:
        path.write_text(before, encoding="utf-8")
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def _end(group: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.killpg(group, signal.SIGKILL)
