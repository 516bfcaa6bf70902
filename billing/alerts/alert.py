"""An alert, and the webhook message that tells it. Pure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

from billing.credits.entries import AlertEntry

LOW_BALANCE: Final = "low_balance"
EXHAUSTED: Final = "exhausted"
DEBT: Final = "debt"
TOP_UP_DECLINED: Final = "top_up_declined"
CORRUPT: Final = "corrupt"
UNREPORTED: Final = "unreported"
LATE_USAGE: Final = "late_usage"
WAITING_USAGE: Final = "waiting_usage"
LAW_BROKEN: Final = "law_broken"

_OF_BALANCE: Final = ("threshold_percent", "available", "granted")
_OF_REPORT: Final = ("increment_id", "found")
#: What an alert of each kind says beside client, time and id: names of its fields, or of its details.
FACTS: Final[Mapping[str, tuple[str, ...]]] = {
    LOW_BALANCE: _OF_BALANCE,
    EXHAUSTED: _OF_BALANCE,
    DEBT: ("owed", "overdraft_limit"),
    TOP_UP_DECLINED: ("request_id", "credits", "found"),
    CORRUPT: ("redis_key", "found"),
    UNREPORTED: _OF_REPORT,
    LATE_USAGE: _OF_REPORT,
    WAITING_USAGE: _OF_REPORT,
    LAW_BROKEN: ("law", "found"),
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Alert:
    """A client fell below a share of what it was granted, or has nothing left (`threshold_percent` 0).

    Or it owes more than its overdraft limit covers, or a top-up was declined: `details` has the numbers. Or, for the
    operator alone, a key of its bucket is corrupt: which, and what was found there; or something is to be known of the
    report of its usage: of which increment, and what. Of late usage on its invoice a client is told, too.
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
    details: Mapping[str, Any] = field(default_factory=dict)

    def facts(self) -> dict[str, Any]:
        """Return what it says beside client, time and id, by name: the same to signals and webhooks."""
        return {name: self.details[name] if name in self.details else getattr(self, name) for name in FACTS[self.kind]}

    @property
    def law(self) -> str:
        """The law that is broken: what was found begins with its name."""
        return self.found.partition(": ")[0]


def kind_of(entry: AlertEntry) -> str:
    """Return what an entry of the stream tells."""
    if entry.owed:
        return DEBT
    return LOW_BALANCE if entry.percent else EXHAUSTED


def details_of(entry: AlertEntry) -> dict[str, int]:
    """Return the numbers of what it tells that are in no column."""
    return {"owed": entry.owed, "overdraft_limit": entry.overdraft_limit} if entry.owed else {}


def source_of(entry: AlertEntry) -> str:
    """Return what names an entry for ever: entry ids of another server, or of an emptied one, are other sources."""
    return f"{entry.shard}:{entry.server}:{entry.entry_id}"


def message_id(alert: Alert) -> str:
    """Return the webhook's id: the same at every attempt, so that the receiver can drop what comes twice."""
    return f"alert_{alert.alert_id}"


def body_of(alert: Alert) -> bytes:
    """Return the webhook's body. The same alert gives the same bytes."""
    data = {"alert_id": alert.alert_id, "client_id": alert.client_id, **alert.facts()}
    message = {"type": f"billing.{alert.kind}", "timestamp": alert.occurred_at.isoformat(), "data": data}
    return json.dumps(message, separators=(",", ":")).encode()
