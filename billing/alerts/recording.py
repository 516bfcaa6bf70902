"""Moves alerts from the streams in Redis into the table, and forgets old ones.

An entry leaves its stream after its row is committed: whoever dies in between leaves it to the next, so that nothing is
lost. Any number of workers may do this at the same time.
"""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Final

from billing.alerts.alert import details_of, kind_of, source_of
from billing.alerts.announcing import Announcer
from billing.alerts.statements import PRUNE, RECORD
from billing.connections import postgres
from billing.core.clock import from_milliseconds
from billing.task.runtime import Runtime
from billing.top_ups.looking import make_due

#: Entries taken from a shard at a time (L9).
_BATCH: Final = 200
#: How long an alert can be looked up (L9), and how many are forgotten at a time.
_KEPT: Final = timedelta(days=400)
_PRUNED_MAX: Final = 10_000


def record(runtime: Runtime) -> int:
    """Write what the streams hold into the table; return how many entries that were, known ones included."""
    entries = runtime.buckets.alerts(count=_BATCH)
    if not entries:
        return 0
    given = {
        "now": runtime.clock.now(),
        "clients": [entry.client_id for entry in entries],
        "kinds": [kind_of(entry) for entry in entries],
        "percents": [entry.percent for entry in entries],
        "available": [entry.available for entry in entries],
        "granted": [entry.granted for entry in entries],
        "times": [from_milliseconds(entry.occurred_ms) for entry in entries],
        "details": [json.dumps(details_of(entry)) for entry in entries],
        "sources": [source_of(entry) for entry in entries],
    }
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        connection.execute(RECORD, given)
    # Before the entries go: whoever dies here leaves them to the next, who has their balances looked at.
    make_due(runtime, [entry.client_id for entry in entries])
    runtime.buckets.forget_alerts(entries)
    return len(entries)


def record_and_announce(runtime: Runtime, announcer: Announcer) -> None:
    """Do both, as the fulfillment worker does each second: what is recorded is announced also while Redis is away."""
    try:
        record(runtime)
    finally:
        announcer.step()


def prune(runtime: Runtime) -> None:
    """Forget alerts of more than a year ago."""
    before = runtime.clock.now() - _KEPT
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        connection.execute(PRUNE, {"before": before, "count": _PRUNED_MAX})
