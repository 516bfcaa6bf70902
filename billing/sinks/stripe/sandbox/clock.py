"""The stand-in's time: the machine's, moved or stopped by a control request, so that no test waits for a day."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final

from billing.core.clock import Clock
from billing.core.errors import InvalidValue

LATEST: Final = 7_258_118_400  # the year 2200


@dataclasses.dataclass(kw_only=True)
class SandboxClock:
    """`offset_seconds` moves time; `frozen_at` stops it at a second since the Unix epoch."""

    clock: Clock
    offset_seconds: int = 0
    frozen_at: int | None = None

    def now(self) -> int:
        """Return whole seconds since the Unix epoch."""
        return self.frozen_at if self.frozen_at is not None else int(self.clock.now().timestamp()) + self.offset_seconds

    def set(self, given: Mapping[str, object]) -> None:
        """Obey a control request: `offset_seconds`, `frozen_at` (None: time goes on), `advance_seconds`."""
        # All is checked before anything is done.
        goes_on = given.get("frozen_at", 0) is None
        wanted = {name: _seconds(name, value) for name, value in given.items() if not (goes_on and name == "frozen_at")}
        if goes_on:
            self.frozen_at = None
        for name, seconds in wanted.items():
            if name == "frozen_at":
                self.frozen_at = seconds
            elif name == "offset_seconds":
                self.offset_seconds = seconds
            elif self.frozen_at is not None:
                self.frozen_at += seconds
            else:
                self.offset_seconds += seconds


def _seconds(name: str, value: object) -> int:
    if name not in {"offset_seconds", "frozen_at", "advance_seconds"}:
        raise InvalidValue("clock", name, "must be offset_seconds, frozen_at or advance_seconds")
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) > LATEST:
        raise InvalidValue(name, value, f"must be a whole number of seconds, at most {LATEST}")
    return value
