"""One bounded pass over everything that alerts wait for: what beat runs, in case no fulfillment worker's loop did."""

from __future__ import annotations

from typing import Final

from billing.alerts.announcing import announce
from billing.alerts.deliveries import Deliveries
from billing.alerts.recording import prune, record
from billing.alerts.sync import tell_of_sync
from billing.task.runtime import Runtime

#: Rounds of calls that one pass makes (L9).
_ROUNDS_MAX: Final = 5
#: What it waits for the signals' receivers, since other maintenance waits for it (L9). A longer call goes on, and
#: notes its end itself; one whose process ends before is made again.
ANNOUNCING_SECONDS: Final = 5.0


def deliver_pending(runtime: Runtime) -> None:
    """Record, announce and post what waits. Safe beside a loop or another pass: each alert is claimed by one."""
    record(runtime)
    tell_of_sync(runtime)
    announce(runtime, seconds=ANNOUNCING_SECONDS)
    deliveries = Deliveries(runtime)
    try:
        for _ in range(_ROUNDS_MAX):
            if not deliveries.step():
                break
            deliveries.finish()
    finally:
        deliveries.close()
    prune(runtime)
