"""The SQL that reads dead letters, replays them and discards them. None of it deletes one, or touches its bytes."""

from __future__ import annotations

from typing import Final

from billing.events.signing import REASON
from billing.schema.advisory import Guard

_COLUMNS: Final = """
letter_id, state, reason, refusals, queue, octet_length(body) AS bytes, received_at, refused_at, ended_at, remark
"""

#: `state` null: all; `reason` and `queue` "": all.
_ASKED: Final = """
(CAST(:state AS text) IS NULL OR state = :state)
AND (:reason = '' OR strpos(lower(reason), lower(:reason)) > 0)
AND (:queue = '' OR queue = :queue)
"""

#: Letters, newest first, older than `before`.
PAGE: Final = f"""
SELECT {_COLUMNS} FROM dead_letter
WHERE {_ASKED} AND letter_id < :before
ORDER BY letter_id DESC LIMIT :limit
"""  # noqa: S608 - constants of this file

#: How many there are by reason; what a reason quotes or counts is left out, or each letter would have one of its own.
REASONS: Final = f"""
SELECT regexp_replace(regexp_replace(reason, '''[^'']*''|"[^"]*"', '…', 'g'), '[0-9]+', '…', 'g') AS kind,
       count(*) AS letters
FROM dead_letter WHERE {_ASKED}
GROUP BY kind ORDER BY letters DESC, kind LIMIT :limit
"""  # noqa: S608 - constants of this file

#: How many there are by state.
STATES: Final = f"""
SELECT state, count(*) AS letters FROM dead_letter WHERE {_ASKED} GROUP BY state
"""  # noqa: S608 - constants of this file

OPEN: Final = f"SELECT {_COLUMNS}, digest, body FROM dead_letter WHERE letter_id = :letter_id"  # noqa: S608 - constant

#: The states of letters that are named.
READ_NAMED: Final = "SELECT letter_id, state FROM dead_letter WHERE letter_id = ANY(CAST(:ids AS bigint[]))"

_IS_UNVERIFIED: Final = f"starts_with(reason, '{REASON}')"
#: Those of them that were refused for their signature, the first one.
READ_UNVERIFIED: Final = f"""
SELECT min(letter_id) FROM dead_letter
WHERE letter_id = ANY(CAST(:ids AS bigint[])) AND {_IS_UNVERIFIED}
"""  # noqa: S608 - a constant

#: The last letter that a replay of all goes up to, so that it ends whatever is refused meanwhile.
LAST: Final = "SELECT coalesce(max(letter_id), 0) FROM dead_letter"

#: The next letters to be replayed, within the bounds of one batch; one that is larger than the bound goes alone.
NEXT: Final = f"""
SELECT letter_id, queue, body, unverified
FROM (SELECT letter_id, queue, body, unverified, row_number() OVER following AS number,
             sum(octet_length(body)) OVER following AS bytes
      FROM (SELECT letter_id, queue, body, {_IS_UNVERIFIED} AS unverified FROM dead_letter
            WHERE letter_id > :after AND letter_id <= :last
              AND (CAST(:ids AS bigint[]) IS NULL OR letter_id = ANY(CAST(:ids AS bigint[])))
              AND state = ANY(CAST(:states AS text[]))
              AND (:reason = '' OR strpos(lower(reason), lower(:reason)) > 0)
              AND (:unverified OR NOT {_IS_UNVERIFIED})
            ORDER BY letter_id LIMIT :events) AS asked
      WINDOW following AS (ORDER BY letter_id)) AS counted
WHERE number = 1 OR bytes <= :bytes
ORDER BY letter_id
"""  # noqa: S608 - a constant

#: Keep consumers and rebuilds of these shards out until the replay's transaction ends: a client has one writer.
LOCK_SHARDS_ALONE: Final = f"""
SELECT count(pg_advisory_xact_lock({int(Guard.SHARD)}, shard)) FROM unnest(%s::integer[]) AS shard
"""  # noqa: S608 - a constant number

#: Keep other replays and discards of these letters out; in the order in which a consumer keeps letters.
LOCK_LETTERS: Final = """
SELECT letter_id, state FROM dead_letter WHERE letter_id = ANY(%s::bigint[]) ORDER BY digest FOR NO KEY UPDATE
"""

#: Mark letters as replayed, beside the rows of their events; what was replayed before stays as it was marked then.
MARK: Final = """
UPDATE dead_letter AS letter
SET state = 'replayed', ended_at = clock_timestamp(),
    remark = concat(marked.remark, CASE letter.state WHEN 'discarded' THEN '; was discarded: ' || letter.remark END)
FROM unnest(%s::bigint[], %s::text[]) AS marked (letter_id, remark)
WHERE letter.letter_id = marked.letter_id AND letter.state <> 'replayed'
"""

#: Discard open letters.
DISCARD: Final = """
UPDATE dead_letter SET state = 'discarded', ended_at = clock_timestamp(), remark = :remark
WHERE letter_id = ANY(CAST(:ids AS bigint[])) AND state = 'open'
"""

#: Letters that are named, to be looked at or discarded, newest first.
NAMED: Final = f"""
SELECT {_COLUMNS} FROM dead_letter WHERE letter_id = ANY(CAST(:ids AS bigint[])) ORDER BY letter_id
"""  # noqa: S608 - constants of this file

LOCK_NAMED: Final = """
SELECT letter_id, state FROM dead_letter WHERE letter_id = ANY(CAST(:ids AS bigint[])) ORDER BY digest
FOR NO KEY UPDATE
"""
