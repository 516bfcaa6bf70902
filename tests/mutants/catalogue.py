"""All mutants, by room, in the order of the flow."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from tests.mutants.mutant import Mutant
from tests.mutants.rooms import (
    calling,
    charging,
    checking,
    consuming,
    granting,
    holding,
    planning,
    rebuilding,
    recovering,
    relaying,
    reserving,
    running,
    serving,
    signing,
)

#: What the faults of each law are found by.
LAWS: Final = tuple(f"L{number}" for number in range(1, 11))

ROOMS: Final[Mapping[str, tuple[Mutant, ...]]] = {
    "reserve": reserving.RESERVE,
    "settle": reserving.SETTLE,
    "holds and leases": holding.HOLDS,
    "grants and terms": granting.GRANTS,
    "marks of alerts": granting.MARKS,
    "postings to buckets": rebuilding.POSTINGS,
    "rebuilds of buckets": rebuilding.REBUILDS,
    "task and publishing": running.TASKS,
    "reaper and renewal": relaying.REAPER,
    "relay and confirms": relaying.RELAY,
    "verdicts and allotment": charging.VERDICTS,
    "consumer": consuming.CONSUMING,
    "decoder": consuming.DECODER,
    "signatures": signing.SIGNATURES,
    "usage log": charging.LOG,
    "recovery": recovering.RECOVERY,
    "ledger and postings": recovering.LEDGER,
    "tables and roles": recovering.TABLES,
    "planner": planning.PLANNER,
    "calls to Stripe": calling.CALLS,
    "top-ups": serving.TOP_UPS,
    "parked tasks": serving.PARKING,
    "alerts and webhooks": serving.ALERTS,
    "reconciliation": checking.RECONCILIATION,
    "receipts": checking.RECEIPTS,
    "amounts and settings": checking.LIMITS,
}
