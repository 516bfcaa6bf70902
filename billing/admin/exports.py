"""Reads all that PostgreSQL has of one client: table by table, in one read-only snapshot, a row as one JSON text.

What is read is written down here, table by table, and what is not, with the reason: a test compares both with the
database, so that a new table cannot be forgotten. Months that retention has detached are read where they are.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Generator, Iterator, Mapping
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from billing.admin.access import runtime_for
from billing.admin.receipts import FETCH_ROWS
from billing.catalog.clients import get_client
from billing.connections import postgres
from billing.core.settings import Settings
from billing.schema.columns import METADATA

#: Table → what it is to the client. All have a client_id, or belong to a row that has one.
EXPORTED: Final[Mapping[str, str]] = {
    "client": "the client itself: its state, overdraft limit, epoch",
    "credit_grant": "its grants, with their terms",
    "client_change": "what was changed by hand: voids, adjustments, states, overdraft limits",
    "ledger_entry": "the ledger: grants, expiries, voids, adjustments",
    "usage_history": "every line of every run, corrections among them",
    "usage_correction": "why lines of it were corrected, and by how much",
    "usage_rollup": "usage added up per SKU and hour",
    "grant_spent": "usage added up per grant; grant 0 is debt",
    "posting": "what its bucket in Redis was told beyond what it settled itself",
    "settlement_returned": "what its bucket gave back for runs that were settled twice",
    "grant_schedule": "its allowances",
    "top_up_rule": "when it is topped up",
    "top_up_request": "the top-ups that were asked for",
    "parked_task": "its tasks that wait for credits, whole: body and headers have their arguments",
    "alert": "alerts, and what became of each delivery",
    "webhook": "where its alerts go, without the secret that signs them",
    "stripe_customer": "its customer at Stripe",
    "stripe_link_change": "the customers that it had at Stripe before, and why it left them",
    "stripe_increment": "the increments reported to Stripe",
    "stripe_increment_part": "which usage each increment carries",
    "stripe_generation": "every identifier under which each was sent, and why there was another",
    "stripe_attempt": "every call that reported one",
    "stripe_resolution": "what a person said of one",
    "stripe_period": "its billing periods at Stripe",
    "stripe_period_read": "when these were read, and why there are none",
    "discrepancy": "where its books once differed",
    "repair": "what was repaired in its bucket, without who did it",
}

#: Table → why it is not in it.
LEFT_OUT: Final[Mapping[str, str]] = {
    "price": "prices are everybody's",
    "dead_letter": "messages that could not be read as usage: they are kept by what they say, not by whose they are",
    "fleet": "numbers of the installation",
    "shard_rebuild": "work under way, of many clients at once",
    "recovery_marker": "work under way, of many clients at once",
    "reconciliation_run": "checks of all books at once",
    "reconciler": "checks of all books at once",
    "meter": "meters are everybody's",
    "sku_meter": "meters are everybody's",
    "stripe_error_report": "what Stripe reports is of many clients at once; what came of it is in the increments",
    "stripe_budget": "numbers of the installation",
    "stripe_books": "numbers of the installation",
    "last_seen": "processes of the installation",
    "law_check": "checks of all books at once",
    "recorded_workload": "files that were replayed, of many clients at once",
}

#: Columns that stay: a secret, and who works here.
_SECRET: Final = {"webhook": ("secret",), "repair": ("made_by",)}
#: What belongs to the client by another row → how.
_BY_INCREMENT: Final = "increment_id IN (SELECT increment_id FROM stripe_increment WHERE client_id = :client_id)"
#: Also of customers that it had before: their increments and generations name them.
_BY_CUSTOMER: Final = """customer_id IN (
    SELECT customer_id FROM stripe_customer WHERE client_id = :client_id
    UNION SELECT was FROM stripe_link_change WHERE client_id = :client_id
    UNION SELECT made.customer_id FROM stripe_generation AS made JOIN stripe_increment USING (increment_id)
          WHERE client_id = :client_id)"""
_OF_ANOTHER: Final = {
    "stripe_increment_part": _BY_INCREMENT,
    "stripe_generation": _BY_INCREMENT,
    "stripe_attempt": _BY_INCREMENT,
    "stripe_resolution": _BY_INCREMENT,
    "stripe_period": _BY_CUSTOMER,
    "stripe_period_read": _BY_CUSTOMER,
}
#: With the months that are in the archive.
_FROM: Final = {"usage_history": "usage_ever"}
#: In the order of time, which its index has; all else is in the order of its key.
_ORDER: Final = {"usage_history": "occurred_at, run_id, line"}

_ROWS: Final = """
SELECT (to_jsonb(kept) - CAST(:secret AS text[]))::text FROM {table} AS kept WHERE {mine} ORDER BY {order}
"""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ExportPart:
    """The rows of one table that are a client's: each a JSON text. They can be taken once, in the order of parts."""

    name: str
    what: str
    rows: Iterator[str]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class OpenExport:
    """What is being read: whose it is, of which instant, and its parts, one after the other."""

    client_id: str
    read_at: datetime
    parts: Iterator[ExportPart]


@contextlib.contextmanager
def open_export(settings: Settings, client_id: str) -> Iterator[OpenExport]:
    """Within, all that PostgreSQL has of a client can be read. Raises `UnknownClient` and `Unreachable`."""
    runtime = runtime_for(settings)
    engine = runtime.engine.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
    with postgres.reaching(settings), engine.connect() as connection:
        known = get_client(connection, client_id)
        connection.execute(text("SET LOCAL TIME ZONE 'UTC'"))
        with contextlib.closing(_parts(connection, known.client_id)) as parts:
            yield OpenExport(client_id=known.client_id, read_at=runtime.clock.now(), parts=parts)


def _parts(connection: Connection, client_id: str) -> Generator[ExportPart]:
    for name, what in EXPORTED.items():
        with contextlib.closing(_rows(connection, name, client_id)) as rows:
            yield ExportPart(name=name, what=what, rows=rows)


def _rows(connection: Connection, name: str, client_id: str) -> Generator[str]:
    order = _ORDER.get(name) or ", ".join(column.name for column in METADATA.tables[name].primary_key)
    mine = _OF_ANOTHER.get(name, "client_id = :client_id")
    statement = text(_ROWS.format(table=_FROM.get(name, name), mine=mine, order=order))
    values = {"client_id": client_id, "secret": list(_SECRET.get(name, ()))}
    with contextlib.closing(connection.execute(statement, values, execution_options={"yield_per": FETCH_ROWS})) as rows:
        for row in rows:
            yield row[0]
