"""L9, what goes on: charges become rows of the log, and parked tasks that can be paid are started.

Both are told from two looks: what stood still since the last check, a quarter of an hour ago, though it had a reason
not to. A fleet at rest stands still and breaks nothing.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from sqlalchemy import ARRAY, Text, bindparam, text

from billing.connections import postgres
from billing.observability.laws.pages import next_page
from billing.observability.liveness.judging import told
from billing.parking.affordable import affordable
from billing.parking.starting import UNDER_WAY_MAX
from billing.parking.statements import HEADS
from billing.reconciliation.report import Law
from billing.task.runtime import Runtime

#: A batch is written after half a second, and beat drains a dead consumer's queues every five minutes: twice by now.
LOG_SILENT_MAX: Final = timedelta(minutes=10)
#: Clients whose charges are looked at while the log is silent, and of whose first parked task (L9).
CLIENTS_MAX: Final = 20_000
HEADS_MAX: Final = 100
#: A charge that has just been made is written a moment later: so often, and with such pauses, it is looked for (L9).
LOOKS_MAX: Final = 20
PAUSE_SECONDS: Final = 0.5
#: The starter looks at a client each second, beat every five minutes.
PARKED_MAX: Final = timedelta(minutes=10)

#: Rows that were ever inserted, as PostgreSQL counts by itself: no index leads to the newest row of all months. A crash
#: of the server sets it back, which is a change, too.
_INSERTED: Final = text("""
SELECT coalesce(sum(n_tup_ins), 0)::bigint AS rows, clock_timestamp() AS now
FROM pg_stat_all_tables JOIN usage_partition ON relid = partition
""")
#: What the log has of some clients; who differs by what reconciliation has named already is no news.
_LOGGED: Final = text(f"""
SELECT client_id, coalesce(sum(credits), 0)::bigint AS credits
FROM unnest(:ids) AS asked (client_id) LEFT JOIN grant_spent USING (client_id)
WHERE NOT EXISTS (
    SELECT FROM discrepancy WHERE discrepancy.client_id = asked.client_id AND law = '{Law.SPENT.value}'
        AND closes IS NULL AND NOT EXISTS (
            SELECT FROM discrepancy AS later WHERE later.closes = discrepancy.discrepancy_id)
)
GROUP BY client_id
""").bindparams(bindparam("ids", type_=ARRAY(Text)))  # noqa: S608 - text of our own
_FIRST: Final = text("""
SELECT DISTINCT ON (client_id) client_id, parked_id FROM parked_task
WHERE client_id = ANY(:ids) AND state = 'waiting' ORDER BY client_id, parked_id
""").bindparams(bindparam("ids", type_=ARRAY(Text)))
_UNDER_WAY: Final = text("""
SELECT client_id, sku, CAST(sum(credits) AS bigint) AS credits FROM parked_task
WHERE client_id = ANY(:ids) AND state = 'started' AND begun_at IS NULL AND ended_at > :since GROUP BY client_id, sku
""").bindparams(bindparam("ids", type_=ARRAY(Text)))


def log_silence(runtime: Runtime, remembered: dict[str, Any]) -> Iterator[str]:
    """Yield that the log gets no row, though buckets have charged what is not in it."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        rows, now = connection.execute(_INSERTED).one()
    before = remembered.get("log")
    if before is None or before["rows"] != rows:
        remembered["log"] = {"rows": rows, "since": now.isoformat()}
        return
    silent = now - datetime.fromisoformat(before["since"])
    if silent < LOG_SILENT_MAX:
        return
    charged = _charged(runtime)
    for _ in range(LOOKS_MAX):
        if charged is None:
            return
        # Of a fleet that had rested, the first task may have ended just now: its row, or another's, comes meanwhile.
        threading.Event().wait(PAUSE_SECONDS)
        with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
            if connection.execute(_INSERTED).one().rows != rows:
                return
        charged = _unlogged(runtime, [charged[0]])
    if charged is not None:
        client_id, credits_ = charged
        yield (
            f"the usage history got no row for {told(silent.total_seconds())}, though client {client_id} was charged "
            f"{credits_:,} credits that are not in it"
        )


def parked_silence(runtime: Runtime, remembered: dict[str, Any]) -> Iterator[str]:
    """Yield that parked tasks could be paid at the last check, can be paid now, and wait."""
    now = runtime.clock.now()
    first = _payable(runtime)
    before: Mapping[str, list[Any]] = remembered.get("parked", {})
    waiting = {str(parked): before.get(str(parked), [client_id, now.isoformat()]) for client_id, parked in first}
    remembered["parked"] = waiting
    stuck = [client_id for client_id, since in waiting.values() if now - datetime.fromisoformat(since) > PARKED_MAX]
    if stuck:
        yield f"parked tasks of {len(stuck)} clients can be paid and are not started, as of client {stuck[0]}"


def _charged(runtime: Runtime) -> tuple[str, int] | None:
    """Return a client whose bucket has spent more than the log has of it, and how much more."""
    reached, looked = "", 0
    while looked < CLIENTS_MAX:
        page = next_page(runtime, reached)
        if page is None:
            return None
        found = _unlogged(runtime, list(page.shards))
        if found is not None:
            return found
        reached, looked = page.reached, looked + len(page.shards)
    return None


def _unlogged(runtime: Runtime, client_ids: Sequence[str]) -> tuple[str, int] | None:
    """Return the first of some clients whose bucket has spent more than the log has of it, and how much more."""
    balances = runtime.buckets.balances(client_ids)
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        logged = {row.client_id: row.credits for row in connection.execute(_LOGGED, {"ids": list(balances)})}
    for client_id, credits_ in logged.items():
        if balances[client_id].spent > credits_:
            return client_id, balances[client_id].spent - credits_
    return None


def _payable(runtime: Runtime) -> Sequence[tuple[str, int]]:
    """Return clients that can pay their first parked task, and that task."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        heads = connection.execute(HEADS, {"after": "", "count": HEADS_MAX}).all()
        ids = [head.client_id for head in heads]
        first = {row.client_id: row.parked_id for row in connection.execute(_FIRST, {"ids": ids})}
        under_way: dict[str, dict[str, int]] = collections.defaultdict(dict)
        for row in connection.execute(_UNDER_WAY, {"ids": ids, "since": runtime.clock.now() - UNDER_WAY_MAX}):
            under_way[row.client_id][row.sku] = row.credits
    balances = runtime.buckets.balances(ids) if ids else {}
    return [
        (head.client_id, first[head.client_id])
        for head in heads
        if head.client_id in balances
        and head.client_id in first
        and affordable(balances[head.client_id], under_way[head.client_id], [(head.sku, head.credits)])
    ]
