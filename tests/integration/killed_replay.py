"""A replay of all letters in a process that kills itself in batch 2: `killed_replay.py SETTINGS POINT`."""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from billing import admin
from billing.core.settings import Settings
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.log import BatchReport
from billing.fulfillment.replaying import ReplayLog


class Doomed(ReplayLog):
    """Dies before the commit of its second batch, or after it."""

    point = ""
    number = 0

    def write(self, batch: Sequence[Delivered]) -> BatchReport:
        """Write, and die where it is due."""
        self.number += 1
        report = super().write(batch)
        self._die_at("after commit")
        return report

    def _write(self, cursor: Any, batch: Sequence[Delivered], *, look: bool) -> BatchReport:
        report = super()._write(cursor, batch, look=look)
        self._die_at("before commit")
        return report

    def _write_events(self, cursor: Any, sorting: Any, *, look: bool) -> Any:
        written = super()._write_events(cursor, sorting, look=look)
        self._die_at("before the mark")
        return written

    def _die_at(self, point: str) -> None:
        if point == self.point and self.number == 2:
            os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Replay until the end."""
    Doomed.point = sys.argv[2]
    # The module: `admin.dead_letters` is the function of that name. Replaced in this process only.
    setattr(importlib.import_module("billing.admin.dead_letters"), "ReplayLog", Doomed)  # noqa: B010
    given = json.loads(sys.argv[1])
    # Settings of administrative calls are hashed, and JSON has no tuples.
    known: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in given.items()}
    admin.replay_dead_letters(Settings(**known))


if __name__ == "__main__":
    main()
