"""A fulfillment worker that dies by SIGKILL between a parked task's publish and its mark, once, when a test asks."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from billing.parking.starting import Starter
from tests.fleet.tasks import make_app

#: The file that asks for it.
KILL = "kill.mark"

app = make_app(os.environ)
_mark = Starter._mark


def _mark_or_die(self: Starter, connection: Any, started: Any) -> None:
    order = Path(os.environ["FLEET_DIRECTORY"]) / KILL
    if started and order.exists():
        order.unlink()
        os.kill(os.getpid(), 9)
    _mark(self, connection, started)


Starter._mark = _mark_or_die  # type: ignore[method-assign]
