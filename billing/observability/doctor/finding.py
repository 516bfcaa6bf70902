"""What `billing doctor` finds: one checked thing each, with what to do about it."""

from __future__ import annotations

import dataclasses
from enum import Enum


class Verdict(Enum):
    """How a check ended. Only `FAIL` makes the command exit with 1."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """One checked thing: what was seen, and what to do about it."""

    part: str
    verdict: Verdict
    seen: str
    advice: str = ""


def ok(part: str, seen: str, _advice: str = "") -> Finding:
    """Return the finding that all is well: there is nothing to advise."""
    return Finding(part=part, verdict=Verdict.OK, seen=seen)


def warn(part: str, seen: str, advice: str = "") -> Finding:
    """Return a finding that works, with less than is promised."""
    return Finding(part=part, verdict=Verdict.WARN, seen=seen, advice=advice)


def fail(part: str, seen: str, advice: str = "") -> Finding:
    """Return the finding that billing cannot do its work like this."""
    return Finding(part=part, verdict=Verdict.FAIL, seen=seen, advice=advice)
