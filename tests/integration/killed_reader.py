"""A reader of error reports that kills itself when it has kept the first one: `killed_reader.py DATABASE STRIPE AT`."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime

from billing.connections import postgres
from billing.core.settings import Settings
from billing.sinks.sink import ErrorReport
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.sync.calling.reports import Reports
from billing.sinks.sync.postgres.log import PostgresLog
from tests.integration.syncing import TestClock


class Doomed(PostgresLog):
    """A log whose process dies as soon as a report is kept."""

    def add_reports(self, reports: Sequence[ErrorReport], now: datetime) -> list[tuple[ErrorReport, list[int]]]:
        """Keep them, and die."""
        super().add_reports(reports, now)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def main() -> None:
    """Read, and die."""
    settings = Settings(database_url=sys.argv[1], stripe_sandbox_url=sys.argv[2])
    clock = TestClock(datetime.fromisoformat(sys.argv[3]))
    Reports(Doomed(postgres.engine(settings)), clock, lambda: Gateway(settings)).read()


if __name__ == "__main__":
    main()
