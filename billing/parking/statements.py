"""The SQL of parked tasks, named. Times are given by the caller, whose clock decides what is over.

Of a client one session parks at a time, so that its bound is exact and its order that of the commits; and one starts.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

#: Wait for one's turn to park a task of a client.
PARK_TURN: Final = text("SELECT pg_advisory_xact_lock(:guard, hashtext(:client))")

#: Take the turn to start a client's tasks, unless somebody else has it.
START_TURN: Final = text("SELECT pg_try_advisory_xact_lock(:guard, hashtext(:client))")

#: What is known of a run that is to be parked.
KNOWN: Final = text("SELECT parked_id, state, times FROM parked_task WHERE run_id = :run FOR UPDATE")

#: Whether a client has as many waiting as it may.
IS_FULL: Final = text("""
    SELECT count(*) >= :most FROM (
        SELECT FROM parked_task WHERE client_id = :client AND state = 'waiting' LIMIT :most
    ) AS waiting
""")

PARK: Final = text("""
    INSERT INTO parked_task (run_id, client_id, task, task_id, sku, credits, available, body, content_type,
        content_encoding, headers, properties, exchange, routing_key, times, parked_at, expires_at)
    VALUES (:run, :client, :task, :task_id, :sku, :credits, :available, :body, :content_type,
        :content_encoding, :headers, :properties, :exchange, :routing_key, :times, :now, :expires)
""")

#: Have a run wait again that was handed over: at its old place, and no longer than it would have waited.
PARK_AGAIN: Final = text("""
    UPDATE parked_task SET sku = :sku, credits = :credits, available = :available, body = :body,
        content_type = :content_type, content_encoding = :content_encoding, headers = :headers,
        properties = :properties, exchange = :exchange, routing_key = :routing_key,
        state = 'waiting', times = :times, ended_at = NULL, begun_at = NULL
    WHERE parked_id = :parked
""")

#: Note that the message which was handed over has reserved. A starter that died before it could say so has started it.
BEGUN: Final = text("""
    UPDATE parked_task SET begun_at = :now, state = 'started', ended_at = coalesce(ended_at, :now)
    WHERE run_id = :run AND times = :times AND begun_at IS NULL AND state IN ('waiting', 'started')
""")

#: The first waiting task of each of the next clients: one look into the index per client, however many tasks it has.
HEADS: Final = text("""
    WITH RECURSIVE clients AS (
        (SELECT client_id FROM parked_task WHERE state = 'waiting' AND client_id > :after
         ORDER BY client_id LIMIT 1)
        UNION ALL
        SELECT (SELECT following.client_id FROM parked_task AS following
                WHERE following.state = 'waiting' AND following.client_id > clients.client_id
                ORDER BY following.client_id LIMIT 1)
        FROM clients WHERE clients.client_id IS NOT NULL
    ), chosen AS MATERIALIZED (SELECT client_id FROM clients WHERE client_id IS NOT NULL LIMIT :count)
    SELECT chosen.client_id, head.sku, head.credits FROM chosen CROSS JOIN LATERAL (
        SELECT sku, credits FROM parked_task AS first
        WHERE first.client_id = chosen.client_id AND first.state = 'waiting' ORDER BY parked_id LIMIT 1
    ) AS head ORDER BY chosen.client_id
""")

#: What a client has under way: handed over lately, and not yet reserved.
UNDER_WAY: Final = text("""
    SELECT sku, CAST(sum(credits) AS bigint) AS credits FROM parked_task
    WHERE client_id = :client AND state = 'started' AND begun_at IS NULL AND ended_at > :since GROUP BY sku
""")

#: The first waiting tasks of a client, nobody else's for as long as it takes to hand them over. Without their messages,
#: which may be large.
WAITING: Final = text("""
    SELECT parked_id, sku, credits FROM parked_task
    WHERE client_id = :client AND state = 'waiting' AND expires_at > :now ORDER BY parked_id LIMIT :count FOR UPDATE
""")

MESSAGES: Final = text("SELECT * FROM parked_task WHERE parked_id = ANY(CAST(:parked AS bigint[])) ORDER BY parked_id")

STARTED: Final = text("""
    UPDATE parked_task SET state = 'started', ended_at = :now
    WHERE parked_id = ANY(CAST(:parked AS bigint[])) AND state = 'waiting'
""")

#: End what has waited too long. Materialized, since a part with LIMIT that a plan looked at twice would take more.
EXPIRE: Final = text("""
    WITH overdue AS MATERIALIZED (
        SELECT parked_id FROM parked_task WHERE state = 'waiting' AND expires_at <= :now
        ORDER BY expires_at LIMIT :count FOR UPDATE SKIP LOCKED
    )
    UPDATE parked_task SET state = 'expired', ended_at = :now, tell_at = :now FROM overdue
    WHERE parked_task.parked_id = overdue.parked_id
""")

#: Cancel one task, or all of a client that wait.
CANCEL: Final = text("""
    UPDATE parked_task SET state = 'cancelled', ended_at = :now, tell_at = :now
    WHERE state = 'waiting' AND (parked_id = :parked OR client_id = :client)
    RETURNING parked_id, run_id, client_id, task, task_id, sku, credits, state, times, parked_at, expires_at, ended_at
""")

#: Take failures that are to be told; who does not say that it has told them leaves them to the next.
TAKE_UNTOLD: Final = text("""
    WITH untold AS MATERIALIZED (
        SELECT parked_id FROM parked_task WHERE tell_at <= :now ORDER BY tell_at LIMIT :count FOR UPDATE SKIP LOCKED
    )
    UPDATE parked_task SET tell_at = :again FROM untold WHERE parked_task.parked_id = untold.parked_id
    RETURNING parked_task.*
""")

TOLD: Final = text("UPDATE parked_task SET tell_at = NULL WHERE parked_id = ANY(CAST(:parked AS bigint[]))")

#: Forget what has ended long ago.
FORGET: Final = text("""
    WITH old AS MATERIALIZED (
        SELECT parked_id FROM parked_task WHERE ended_at <= :before ORDER BY ended_at LIMIT :count
        FOR UPDATE SKIP LOCKED
    )
    DELETE FROM parked_task USING old WHERE parked_task.parked_id = old.parked_id
""")
