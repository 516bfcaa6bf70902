"""Looks for a regular expression in files, line by line, until it has found enough.

Bounded: the pattern's length, the part of each line that is looked at, the matches, the text kept of each. Not bounded
here: the time that a pattern with nested repetition (as `(a+)+$`) takes on one line; the task's time limit ends it.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable
from typing import Final

from worker_tasks.errors import InvalidArgument

PATTERN_CHARACTERS_MAX: Final = 500
LINE_CHARACTERS_MAX: Final = 1_000
TEXT_CHARACTERS_MAX: Final = 120
MATCHES_MAX: Final = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Match:
    """A line that matched: `line` counts from 1, `text` is trimmed."""

    file: str
    line: int
    text: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """What a scan has found, and how many files it has read for it, the last one perhaps in part."""

    matches: tuple[Match, ...]
    files_scanned: int


def compile_pattern(pattern: object) -> re.Pattern[str]:
    """Return the compiled expression, or raise `InvalidArgument`."""
    if not isinstance(pattern, str) or not 1 <= len(pattern) <= PATTERN_CHARACTERS_MAX:
        raise InvalidArgument("pattern", str(pattern)[:80], f"must be text of 1 to {PATTERN_CHARACTERS_MAX} characters")
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise InvalidArgument("pattern", pattern[:80], f"is not a regular expression: {error}") from None


def check_matches_max(matches_max: object) -> int:
    """Return the bound on matches, or raise `InvalidArgument`."""
    if isinstance(matches_max, bool) or not isinstance(matches_max, int) or not 1 <= matches_max <= MATCHES_MAX:
        raise InvalidArgument("matches_max", str(matches_max)[:80], f"must be a whole number from 1 to {MATCHES_MAX}")
    return matches_max


def scan(files: Iterable[tuple[str, str]], expression: re.Pattern[str], matches_max: int) -> Found:
    """Search `files` (name, text) in order and stop at `matches_max`; what comes after is not read, nor counted."""
    matches: list[Match] = []
    files_scanned = 0
    for name, text in files:
        files_scanned += 1
        for number, line in enumerate(text.splitlines(), start=1):
            if expression.search(line, 0, LINE_CHARACTERS_MAX):
                matches.append(Match(file=name, line=number, text=line.strip()[:TEXT_CHARACTERS_MAX]))
                if len(matches) == matches_max:
                    return Found(matches=tuple(matches), files_scanned=files_scanned)
    return Found(matches=tuple(matches), files_scanned=files_scanned)
