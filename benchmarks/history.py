"""A usage history of any size, made by PostgreSQL itself: a fleet that has run for months, as its tables would be.

Every row goes through the real schema, with its partitions, constraints, triggers and indexes, in the order of its run
id, and has an id as `billing.core.ids` makes it: UUIDv7, the time bits of its workflow's root. Workflows are of eight
runs, every twentieth run has a second line, and a few clients have most of the use (the first of 10,000 about 5 %).
What is left out: the consumer. It derives sums batch by batch; here they are one query each over the finished history.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import psycopg

from billing.core.settings import Settings
from billing.core.shards import shard_of

#: Months behind the present one that the history covers, as if the schema had been migrated then.
MONTHS: Final = 11
#: The client whose month is read, and its runs in each month: as many in a small history as in a large one.
READER: Final = "reader"
READER_RUNS: Final = 1_000
#: Connections that make a history at the same time.
LOADERS: Final = 2
#: Clients that are there in every history for what is written anew.
WRITERS: Final = 200

#: Begin the months earlier: nothing lies in the partition before the first month yet.
_BEGIN_EARLIER: Final = """
DROP TABLE usage_history_early;
SELECT billing_make_usage_partition('usage_history_early', format('FROM (MINVALUE) TO (%L)', billing_run_id_bound(
    (date_trunc('month', now() AT TIME ZONE 'UTC') - interval '{months} months') AT TIME ZONE 'UTC')));
SELECT billing_make_usage_months((date_trunc('month', now() AT TIME ZONE 'UTC') + interval '12 months')::date);
"""

_CLIENTS: Final = """
INSERT INTO client (client_id, shard) SELECT * FROM unnest(%s::text[], %s::int[])
"""

_GRANTS: Final = """
INSERT INTO credit_grant (client_id, credits, key, applied_at)
SELECT client_id, 1000000000000, 'first', now() FROM client
"""

_CUSTOMERS: Final = """
INSERT INTO stripe_customer (client_id, customer_id) SELECT client_id, 'cus_' || client_id FROM client
"""

#: The runs from `first` up to, not including, `last`, which lie evenly between two instants (in ms), among the
#: reader's of the same time. The bits of a hash stand for chance, so that a history is the same each time.
_HISTORY: Final = """
WITH given AS (
    SELECT %(first)s::bigint AS first, %(last)s::bigint AS last, %(start)s::bigint AS start_ms,
           (%(end)s - %(start)s)::bigint AS span_ms, %(runs)s::bigint AS runs
), bulk AS (
    SELECT 'client-' || floor(%(clients)s * power(chance, 3))::int AS client_id, run / 8 AS workflow, run,
           (number %% 20 = 19)::int AS line, start_ms + span_ms * (run / 8 * 8 - first) / (last - first) AS at_ms
    FROM given CROSS JOIN generate_series(first, last - 1) AS number,
         LATERAL (SELECT number - (number %% 20 = 19)::int AS run) AS of_run,
         LATERAL (SELECT (hashint8extended(run / 8, 7) & 4294967295) / 4294967296.0::float8 AS chance) AS of_workflow
), reader AS (
    SELECT %(reader)s, run / 8 AS workflow, run, 0 AS line, start_ms + span_ms * (run / 8 * 8 - first) / runs AS at_ms
    FROM given CROSS JOIN generate_series(first, first + runs - 1) AS run
), made AS (
    SELECT *, md5(client_id || ' ' || run) AS digest, hashint8extended(run, 11) & 65535 AS dice FROM (
        SELECT * FROM bulk UNION ALL SELECT * FROM reader
    ) AS both_kinds (client_id, workflow, run, line, at_ms)
), charged AS (
    SELECT *, CASE WHEN line = 1 THEN 'kib' WHEN dice %% 10 < 7 THEN 'page' ELSE 'search' END AS sku,
           CASE WHEN line = 1 THEN 1 + dice %% 500 ELSE 1 + dice %% 3 END AS quantity,
           at_ms + 700 * (run %% 8 + 1) + dice %% 4000 AS occurred_ms
    FROM made
)
INSERT INTO usage_history (run_id, line, settlement_id, client_id, correlation_id, root_id, task, attempt, sku,
                           quantity, credits, grants, epoch, price_version, submitted_at, occurred_at, recorded_at)
SELECT (lpad(to_hex(at_ms::bigint), 12, '0') || '7' || substr(digest, 1, 3) || '8' || substr(digest, 4, 15))::uuid,
       line, md5(digest), client_id, digest::uuid::text, md5(client_id || '/' || workflow)::uuid::text,
       'worker_tasks.capture.capture_page', 1, sku, quantity, quantity * 10,
       jsonb_build_array(jsonb_build_object('grant', grant_id, 'credits', quantity * 10)), 1, 1,
       timestamptz 'epoch' + at_ms * interval '1 millisecond',
       timestamptz 'epoch' + occurred_ms * interval '1 millisecond',
       timestamptz 'epoch' + (occurred_ms + 1500) * interval '1 millisecond'
FROM charged JOIN credit_grant USING (client_id)
ORDER BY 1, 2
"""

#: All of it is in increments already, as after every sync.
_ROLLUPS: Final = """
INSERT INTO usage_rollup (client_id, sku, hour, credits, quantity, planned)
SELECT client_id, sku, date_trunc('hour', occurred_at, 'UTC') AS hour, sum(credits), sum(quantity), sum(credits)
FROM usage_history WHERE abs(hashtext(client_id)) %% %(parts)s = %(part)s
GROUP BY 1, 2, 3 ORDER BY hour, client_id, sku
"""

#: Each client has one grant.
_SPENT: Final = """
INSERT INTO grant_spent (client_id, grant_id, credits)
SELECT client_id, grant_id, sum(usage_rollup.credits)
FROM usage_rollup JOIN credit_grant USING (client_id) GROUP BY 1, 2
"""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class History:
    """What was made. `month` is when the month begins that `READER` is asked about: the last whole one."""

    settings: Settings
    rows: int
    clients: int
    month: datetime
    month_end: datetime


def writers() -> list[str]:
    """Return the clients that are for what is written anew."""
    return [f"writer-{number}" for number in range(WRITERS)]


def make_history(settings: Settings, *, rows: int, clients: int, now: datetime) -> History:
    """Fill a freshly migrated database with about `rows` rows of `clients` clients, up to the hour before `now`.

    The reader's rows are among them, and are as many in a history of any size.
    """
    months = [_months_before(now, count) for count in range(MONTHS, -1, -1)]
    until = now.astimezone(UTC).replace(minute=0, second=0, microsecond=0)
    spans = [(start, min(end, until)) for start, end in zip(months, [*months[1:], until], strict=True)]
    whole = sum((end - start).total_seconds() for start, end in spans)
    with _loader(settings) as connection:
        connection.execute(_BEGIN_EARLIER.replace("{months}", str(MONTHS)).encode())
        _add_clients(connection, settings, [READER, *writers(), *(f"client-{number}" for number in range(clients))])
    first, months_of_runs = 0, []
    bulk = max(rows - READER_RUNS * len(spans), 0)
    for start, end in spans:
        # A small history has few runs beside the reader's, but some in each month: the reader's lie among them.
        share = max(round(bulk * (end - start).total_seconds() / whole), 40) // 40 * 40
        given = {"clients": clients, "reader": READER, "runs": READER_RUNS, "first": first}
        months_of_runs.append(given | {"last": first + share, "start": _milliseconds(start), "end": _milliseconds(end)})
        first += share
    # A month is a partition of its own, and a half of the clients has rollups of its own: neither waits for the other.
    _at_once(settings, [(_HISTORY, given) for given in months_of_runs])
    _at_once(settings, [(_ROLLUPS, {"part": part, "parts": LOADERS}) for part in range(LOADERS)])
    with _loader(settings) as connection:
        connection.execute(_SPENT)
        settle(connection)
    return History(
        settings=settings,
        rows=first + READER_RUNS * len(spans),
        clients=clients,
        month=months[-2],
        month_end=months[-1],
    )


def _at_once(settings: Settings, statements: Sequence[tuple[str, dict[str, object]]]) -> None:
    """Execute statements with as many connections as there are loaders; raise what one of them has raised."""

    def execute(one: tuple[str, dict[str, object]]) -> None:
        statement, given = one
        with _loader(settings) as connection:
            connection.execute(statement.encode(), given)

    with concurrent.futures.ThreadPoolExecutor(LOADERS) as pool:
        list(pool.map(execute, statements))


@contextlib.contextmanager
def _loader(settings: Settings) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(settings.database_url, autocommit=True) as connection:
        connection.execute("SET synchronous_commit = off")
        connection.execute("SET work_mem = '256MB'")
        yield connection


def settle(connection: psycopg.Connection[Any]) -> None:
    """Leave the tables as autovacuum leaves months that are over."""
    connection.execute("VACUUM (ANALYZE)")
    connection.execute("CHECKPOINT")


def _add_clients(connection: psycopg.Connection[Any], settings: Settings, client_ids: list[str]) -> None:
    shards = [shard_of(client_id, settings.shards) for client_id in client_ids]
    connection.execute(_CLIENTS, [client_ids, shards])
    connection.execute(_GRANTS)
    connection.execute(_CUSTOMERS)


def _months_before(now: datetime, count: int) -> datetime:
    index = now.astimezone(UTC).year * 12 + now.astimezone(UTC).month - 1 - count
    return datetime(index // 12, index % 12 + 1, 1, tzinfo=UTC)


def _milliseconds(instant: datetime) -> int:
    return round(instant.timestamp() * 1000)
