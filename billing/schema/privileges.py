"""Who may do what in PostgreSQL: the three group roles beside the owner, and what each may do to each table. Pure.

`billing_consumer` writes batches of the log and no more. `billing_fleet` is for everything that runs and for the
commands. `billing_reader` reads, for receipts and dashboards. None may change or remove what is append-only (L7), and
none may move a month; only the owner, who migrates, can.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from billing.schema.columns import METADATA
from billing.schema.tables import APPEND_ONLY

CONSUMER: Final = "billing_consumer"
FLEET: Final = "billing_fleet"
READER: Final = "billing_reader"
ROLES: Final = (CONSUMER, FLEET, READER)

#: What is no table of the metadata: read, and nothing else.
JOINED: Final = ("archive.usage_history", "usage_ever", "usage_partition", "billing_schema_version")
#: The one function that works with the owner's rights, and who may call it: beat's daily task.
MAKE_MONTHS: Final = "billing_make_usage_months(date)"

#: What a batch's transaction does (`fulfillment.log_statements`), column by column where that is less.
_CONSUMER: Final[Mapping[str, str]] = {
    "usage_history": "SELECT, INSERT",
    "archive.usage_history": "SELECT",
    "usage_partition": "SELECT",
    "client": "SELECT (client_id, shard, epoch), UPDATE (epoch)",
    "credit_grant": "SELECT",
    "ledger_entry": "SELECT",
    "usage_rollup": "SELECT, INSERT, UPDATE (credits, quantity)",
    "grant_spent": "SELECT, INSERT, UPDATE (credits)",
    "posting": "SELECT, INSERT, UPDATE (credits, restored, version)",
    "settlement_returned": "SELECT, INSERT",
    "shard_rebuild": "SELECT, INSERT, UPDATE",
    "recovery_marker": "SELECT, INSERT",
    "dead_letter": "SELECT (letter_id, digest, refusals, reason), INSERT, UPDATE (refusals, refused_at, reason)",
    "fleet": "SELECT",
}

#: Corrections are rows of their own there, as in what must not be changed at all.
_ADDED_TO: Final = (*APPEND_ONLY, "repair")
#: What somebody removes rows from: what was done with, a row at a time.
_CLEANED: Final = (
    "alert",
    "discrepancy",
    "last_seen",
    "parked_task",
    "posting",
    "reconciliation_run",
    "recovery_marker",
    "shard_rebuild",
    "stripe_period",
    "top_up_rule",
    "webhook",
)

#: What a reader has no use for: secrets, whole messages with their arguments, and what is between the servers only.
_HIDDEN: Final = frozenset({"webhook", "parked_task", "recorded_workload", "recovery_marker", "shard_rebuild"})
#: Of the dead letters a reader sees all but the messages.
_HIDDEN_COLUMNS: Final = {"dead_letter": frozenset({"body"})}


def granted(role: str) -> Mapping[str, str]:
    """Return what a role may do, by table."""
    if role == CONSUMER:
        return _CONSUMER
    found = dict.fromkeys(JOINED, "SELECT")
    for name, table in METADATA.tables.items():
        if role == FLEET:
            found[name] = "SELECT, INSERT" if name in _ADDED_TO else "SELECT, INSERT, UPDATE"
            if name in _CLEANED:
                found[name] += ", DELETE"
        elif name in _HIDDEN_COLUMNS:
            shown = (column.name for column in table.columns if column.name not in _HIDDEN_COLUMNS[name])
            found[name] = f"SELECT ({', '.join(shown)})"
        elif name not in _HIDDEN:
            found[name] = "SELECT"
    return found
