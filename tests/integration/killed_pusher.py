"""A pusher in a process of its own that kills itself at a named point: `killed_pusher.py SETTINGS POINT AT`.

It runs on the clock of the test, at the instant AT.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from datetime import datetime

from billing.connections import postgres
from billing.core.settings import Settings
from billing.sinks.sink import Payload, Reply
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.keys import KeyKind
from billing.sinks.sync.postgres_log import PostgresLog
from billing.sinks.sync.pusher import Pusher
from tests.integration.syncing import TestClock


class Doomed(Gateway):
    """A gateway whose process dies right before its first call, or right after it."""

    point = ""

    def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Die where it is due."""
        if self.point == "before call":
            os.kill(os.getpid(), signal.SIGKILL)
        super().send(payload, idempotency_key=idempotency_key)
        os.kill(os.getpid(), signal.SIGKILL)
        raise AssertionError


def main() -> None:
    """Push, and die."""
    settings = Settings(**json.loads(sys.argv[1]))
    Doomed.point = sys.argv[2]
    clock = TestClock(datetime.fromisoformat(sys.argv[3]))
    engine = postgres.engine(settings)
    Pusher(PostgresLog(engine), clock, lambda: Doomed(settings), books=KeyKind.STAND_IN.value).push(most=100)


if __name__ == "__main__":
    main()
