"""What waits in a shard until somebody has taken it over: events in the outbox, alerts in their stream.

Frozen values; times are milliseconds of Redis' clock, amounts whole credits. They refuse nothing.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class OutboxEntry:
    """A settled event that nobody has confirmed yet."""

    entry_id: str
    event: bytes
    age_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AlertEntry:
    """A client fell below a share of what it was granted; `percent` 0: nothing was left, or a reserve was refused.

    With `owed`: from now on it owes more than its limit covers. `server`: the run id of the server that wrote it.
    """

    shard: int
    entry_id: str
    server: str
    client_id: str
    percent: int
    available: int
    granted: int
    occurred_ms: int
    owed: int = 0
    overdraft_limit: int = 0
