"""A consumer in a process of its own that kills itself at a named point: `killed_consumer.py SETTINGS POINT BATCH`."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from typing import Any

from billing.connections import postgres
from billing.core.settings import Settings
from billing.fulfillment import consumer
from billing.fulfillment.batch import Received
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.intake import Intake
from billing.fulfillment.log import BatchReport
from billing.fulfillment.postgres_log import PostgresUsageLog


def die() -> None:
    """End this process as the kernel would."""
    os.kill(os.getpid(), signal.SIGKILL)


class Doomed(PostgresUsageLog):
    """A usage log whose process dies at batch `at`: before its commit, or after it and before the ack."""

    def __init__(self, settings: Settings, point: str, at: int) -> None:
        super().__init__(lambda: postgres.connect(settings), shards=settings.shards)
        self.point, self.at, self.number = point, at, 0

    def write(self, batch: Sequence[Delivered]) -> BatchReport:
        """Write, and die where it is due."""
        self.number += 1
        report = super().write(batch)
        if self.point == "after commit" and self.number == self.at:
            die()
        return report

    def _write(self, cursor: Any, batch: Sequence[Delivered], *, look: bool) -> BatchReport:
        report = super()._write(cursor, batch, look=look)
        if self.point == "before commit" and self.number == self.at:
            die()
        return report


class DoomedIntake(Intake):
    """An intake whose process dies right after ack number `at` was sent."""

    at = 0
    number = 0

    def ack(self, batch: Sequence[Received]) -> None:
        """Ack, and die where it is due."""
        super().ack(batch)
        DoomedIntake.number += 1
        if DoomedIntake.number == self.at:
            die()


def main() -> None:
    """Consume until the end."""
    settings = Settings(**json.loads(sys.argv[1]))
    point, at = sys.argv[2], int(sys.argv[3])
    if point == "after ack":
        DoomedIntake.at = at
        setattr(consumer, "Intake", DoomedIntake)  # noqa: B010 -- replaced in this process only
    consumer.Consumer(settings, Doomed(settings, point, at)).run()


if __name__ == "__main__":
    main()
