"""What a law is, and what one look at it comes to. Pure.

A law is checked a slice at a time: a round is over when a slice ends at the front again. What was found stands until a
whole round has found nothing, so that a law with many slices is not said to hold because the last of them was clean.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final, Protocol

from billing.task.runtime import Runtime

#: Characters of what was found that are kept (L9).
FOUND_MAX: Final = 500


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Place:
    """Where a slice begins, what the last one left to it, and the moment (monotonic) after which it begins nothing."""

    resume_after: str = ""
    remembered: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    until: float


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Slice:
    """What one look came to. `resume_after` empty: the round is over.

    `violations` are those of the slice; `at_once` those of what every look sees as a whole, whatever its slice.
    """

    examined: int
    violations: int = 0
    found: str = ""
    at_once: int = 0
    found_at_once: str = ""
    resume_after: str = ""
    remembered: Mapping[str, Any] = dataclasses.field(default_factory=dict)


class Law(Protocol):
    """A law that is checked in production."""

    @property
    def name(self) -> str:
        """Its name, as in every output and table."""
        ...

    def check(self, runtime: Runtime, place: Place) -> Slice:
        """Look at the next slice. Raises `Retryable` where it cannot: then nothing is known, and nothing written."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """Violations, and what the first of them is."""

    violations: int = 0
    text: str = ""

    def and_more(self, violations: int, found: str) -> Found:
        """Return these and further ones."""
        return Found(violations=self.violations + violations, text=self.text or found[:FOUND_MAX])


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Checked:
    """A row of `law_check`. `so_far`: of the round under way; `last_round`: of the one that ended last."""

    law: str
    checked_at: datetime
    examined: int
    violations: int
    found: str = ""
    resume_after: str = ""
    remembered: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    so_far: Found = Found()
    last_round: Found = Found()


def after(before: Checked | None, law: str, one: Slice, now: datetime) -> Checked:
    """Return how a law stands after one more slice."""
    so_far = (before.so_far if before else Found()).and_more(one.violations, one.found)
    last_round = before.last_round if before else Found()
    if not one.resume_after:
        so_far, last_round = Found(), so_far
    stands = Found().and_more(one.at_once, one.found_at_once)
    of_slices = so_far if so_far.violations else last_round
    stands = stands.and_more(of_slices.violations, of_slices.text)
    return Checked(
        law=law,
        checked_at=now,
        examined=one.examined,
        violations=stands.violations,
        found=" ".join(stands.text.split()),
        resume_after=one.resume_after,
        remembered=one.remembered,
        so_far=so_far,
        last_round=last_round,
    )


def is_crossing(before: Checked | None, now: Checked) -> bool:
    """Return whether a law that held, or was never checked, holds no more."""
    return now.violations > 0 and (before is None or before.violations == 0)
