"""What a run of pytest says of a mutant, and when it is asked again: nothing but the mutant may be a kill. Pure.

A test that fails is one. After an error outside of a test, a server that is away or a limit, the same test must pass
without the mutant; and but for limits, which are dear, the selection must end so once more with it.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Sequence
from typing import Final

from tests.mutants.mutant import Mutant, Result

#: Words of a fault that no server or interpreter takes: such a mutant tests nothing.
_UNREADABLE: Final = re.compile(
    r"Error compiling function|Script attempted to access nonexistent global|attempt to call global"
    r"|psycopg\.errors\.(?:SyntaxError|UndefinedColumn|UndefinedTable|AmbiguousColumn)|^E +NameError|^E +SyntaxError"
    r"|^E +ImportError|^E +ModuleNotFoundError",
    re.MULTILINE,
)
#: Words of a failure that may be a server's or the machine's own.
_AWAY: Final = re.compile(
    r"^E .*(?:Connection(?:Refused|Reset)|[Cc]onnection (?:refused|reset|is closed)|BrokenPipe|OperationalError"
    r"|server closed the connection|too many (?:clients|open files)|No space left|MemoryError|Cannot allocate"
    r"|NotInstalled|nothing may be missing)",
    re.MULTILINE | re.IGNORECASE,
)
#: Words of a wait, or of a test, that did not end in time.
_LIMIT: Final = re.compile(r"^E .*(?:not within [\d.]+ s:|Timeout|timed out)", re.MULTILINE)
_FAILED: Final = re.compile(r"^FAILED (\S+)", re.MULTILINE)
_ERRED: Final = re.compile(r"^ERROR (\S+)", re.MULTILINE)

#: Runs a command of pytest; returns the exit code, None if it did not end, and what was printed.
Run = Callable[[Sequence[str]], tuple[int | None, str]]


class Sign(enum.Enum):
    """How a run ended."""

    PASSED = enum.auto()
    #: A test failed, by what it says.
    FAILED = enum.auto()
    #: A test failed, or its fixture, by what may be no fault of the code.
    DOUBTED = enum.auto()
    #: A test failed since it waited for too long.
    LATE = enum.auto()
    #: The run did not end.
    ENDLESS = enum.auto()
    #: No test was run to its end.
    UNTESTED = enum.auto()


def read(code: int | None, output: str) -> tuple[Sign, str]:
    """Return how a run ended, and by which test."""
    if code is None:
        return Sign.ENDLESS, "no end in time"
    if code == 0:
        return Sign.PASSED, ""
    failed, erred = _FAILED.search(output), _ERRED.search(output)
    by = failed or erred
    if code != 1 or by is None or _UNREADABLE.search(output) is not None:
        return Sign.UNTESTED, " ".join(output[-500:].split())
    if failed is None or _AWAY.search(output) is not None:
        return Sign.DOUBTED, by.group(1)
    return Sign.LATE if _LIMIT.search(output) is not None else Sign.FAILED, by.group(1)


def judged(mutant: Mutant, commands: Sequence[Sequence[str]], run: Run, run_without: Run) -> tuple[Result, str]:
    """Return what became of a mutant, and by which test or why. L9: at most three runs of each command."""
    for command in commands:
        sign, by = read(*run(command))
        if sign in {Sign.DOUBTED, Sign.LATE} or (sign is Sign.ENDLESS and mutant.hangs):
            without, said = read(*run_without(command if sign is Sign.ENDLESS else _narrowed(command, by)))
            if without is not Sign.PASSED:
                return Result.UNCLEAR, f"{by}: without the mutant as well: {said}"
        if sign is Sign.DOUBTED:
            again, also = read(*run(command))
            if again not in {Sign.PASSED, Sign.FAILED, Sign.UNTESTED} and also != by:
                return Result.UNCLEAR, f"{by}, and then {also}"
            sign, by = (Sign.FAILED, also) if again in {Sign.DOUBTED, Sign.LATE} else (again, also)
        if sign is not Sign.PASSED:
            return _RESULTS[sign], by
    return Result.SURVIVED, ""


_RESULTS: Final = {
    Sign.FAILED: Result.KILLED,
    Sign.LATE: Result.KILLED,
    Sign.ENDLESS: Result.HUNG,
    Sign.UNTESTED: Result.BROKEN,
}


def _narrowed(command: Sequence[str], by: str) -> list[str]:
    """Return the command for one test, with all its parameters, whose names may have spaces."""
    words = list(command[command.index("-k") :]) if "-k" in command else []
    return [by.partition("[")[0], *words]
