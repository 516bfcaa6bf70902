"""A granter of allowances in a process of its own that kills itself: `killed_granter.py SETTINGS POINT NOW`.

It dies after it wrote the grant and before the commit, or right after the commit.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from billing.core.settings import Settings
from billing.ledger.grants import GrantRow
from billing.recovery import allowances
from billing.task.runtime import Runtime
from tests.amqp import MovedClock


def main() -> None:
    """Grant, and die on the way."""
    settings = Settings(**json.loads(sys.argv[1]))
    runtime = Runtime(lambda: settings, MovedClock(at=datetime.fromisoformat(sys.argv[3])))
    name = {"before commit": "grant_due", "after commit": "_grant_next"}[sys.argv[2]]
    step = getattr(allowances, name)

    def last(*arguments: Any) -> Sequence[GrantRow]:
        made: Sequence[GrantRow] = step(*arguments)
        os.kill(os.getpid(), signal.SIGKILL)
        return made

    setattr(allowances, name, last)
    allowances.grant_allowances(runtime)


if __name__ == "__main__":
    main()
