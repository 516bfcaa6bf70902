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
from billing.sinks.sync.calling.pusher import Pusher
from billing.sinks.sync.increment import Increment
from billing.sinks.sync.log import Decide, Noted
from billing.sinks.sync.postgres.log import PostgresLog
from tests.integration.syncing import TestClock


class DoomedLog(PostgresLog):
    """A log whose process dies before its first attempt is on record, or when the first answer is."""

    point = ""

    def claim(self, increment_id: int, decide: Decide) -> Increment | None:
        """Die where it is due."""
        if self.point == "before claim":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().claim(increment_id, decide)

    def note(self, increment_id: int, decide: Noted) -> Increment | None:
        """Die where it is due."""
        found = super().note(increment_id, decide)
        if self.point == "after note":
            os.kill(os.getpid(), signal.SIGKILL)
        return found


class Doomed(Gateway):
    """A gateway whose process dies right before its first call, or right after it."""

    point = ""

    def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Die where it is due."""
        if self.point == "before call":
            os.kill(os.getpid(), signal.SIGKILL)
        reply = super().send(payload, idempotency_key=idempotency_key)
        if self.point == "after call":
            os.kill(os.getpid(), signal.SIGKILL)
        return reply


def main() -> None:
    """Push, and die."""
    settings = Settings(**json.loads(sys.argv[1]))
    Doomed.point = DoomedLog.point = sys.argv[2]
    clock = TestClock(datetime.fromisoformat(sys.argv[3]))
    engine = postgres.engine(settings)
    Pusher(DoomedLog(engine), clock, lambda: Doomed(settings), books=KeyKind.STAND_IN.value).push(most=100)


if __name__ == "__main__":
    main()
