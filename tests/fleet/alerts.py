"""What a fleet under test does with alerts: its receivers note each signal, and its consumer can be told to die."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import billing
from billing.alerts.deliveries import Deliveries
from tests.fleet.tasks import dying, note


def connect(directory: Path) -> None:
    """Have signals noted as lines `<client> <percent>`, and a file `kill.post` kill the consumer before a call."""

    def hear(signal: Any, client_id: str, threshold_percent: int, **_: Any) -> None:
        note(directory, signal.name, f"{client_id} {threshold_percent}")

    for signal in (billing.alerts.low_balance, billing.alerts.exhausted):
        signal.connect(hear, weak=False)
    setattr(Deliveries, "_post", dying(Deliveries._post, directory / "kill.post"))  # noqa: B010 - for the type checker
