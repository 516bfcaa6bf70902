"""An alert, and the webhook message that tells it. Pure."""

from __future__ import annotations

import json
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from billing.credits.values import AlertEntry

LOW_BALANCE: Final = "low_balance"
EXHAUSTED: Final = "exhausted"
CORRUPT: Final = "corrupt"
UNREPORTED: Final = "unreported"
LATE_USAGE: Final = "late_usage"
WAITING_USAGE: Final = "waiting_usage"
LAW_BROKEN: Final = "law_broken"
#: Of the report to Stripe: without amounts, with what was found.
OF_REPORT: Final = (UNREPORTED, LATE_USAGE, WAITING_USAGE)


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """A client fell below a share of what it was granted, or has nothing left (`threshold_percent` 0).

    Or, for the operator alone, a key of its bucket is corrupt: which, and what was found there; or something is to be
    known of the report of its usage: of which increment, and what. Of late usage on its invoice a client is told, too.
    """

    alert_id: int
    client_id: str
    kind: str
    threshold_percent: int
    available: int
    granted: int
    occurred_at: datetime
    redis_key: str = ""
    found: str = ""
    increment_id: int | None = None

    @property
    def law(self) -> str:
        """The law that is broken: what was found begins with its name."""
        return self.found.partition(": ")[0]


def kind_of(entry: AlertEntry) -> str:
    """Return what an entry of the stream tells."""
    return LOW_BALANCE if entry.percent else EXHAUSTED


def source_of(entry: AlertEntry) -> str:
    """Return what names an entry for ever: entry ids of another server, or of an emptied one, are other sources."""
    return f"{entry.shard}:{entry.server}:{entry.entry_id}"


def message_id(alert: Alert) -> str:
    """Return the webhook's id: the same at every attempt, so that the receiver can drop what comes twice."""
    return f"alert_{alert.alert_id}"


def body_of(alert: Alert) -> bytes:
    """Return the webhook's body. The same alert gives the same bytes."""
    data: dict[str, object] = {"alert_id": alert.alert_id, "client_id": alert.client_id}
    if alert.kind in OF_REPORT:
        data |= {"increment_id": alert.increment_id, "found": alert.found}
    else:
        data |= {
            "threshold_percent": alert.threshold_percent,
            "available": alert.available,
            "granted": alert.granted,
        }
    message = {"type": f"billing.{alert.kind}", "timestamp": alert.occurred_at.isoformat(), "data": data}
    return json.dumps(message, separators=(",", ":")).encode()
