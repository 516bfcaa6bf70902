"""The SQL of PostgreSQL's increment log, but for plans. What is found is a hint: the decision under the lock counts.

Each `FIND_…` selects what its function of `protocol.py` says, which a differential suite holds equal.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import bindparam, text
from sqlalchemy.dialects.postgresql import JSONB

from billing.sinks.sync.postgres.rows import COLUMNS
from billing.sinks.sync.protocol import HELD

#: Only one client's, where one is named; not those of some meters.
_LIMITED: Final = """
    (CAST(:client_id AS text) IS NULL OR client_id = :client_id) AND event_name <> ALL (CAST(:without AS text[]))
"""

#: `is_lost`: whose pusher died, or hung for longer than its lease.
FIND_LOST: Final = text(f"""
SELECT increment_id FROM stripe_increment
WHERE state = 'sending' AND (lease_until IS NULL OR lease_until < :now OR lease_until > :longest) AND {_LIMITED}
ORDER BY increment_id LIMIT :most
""")  # noqa: S608 - constants

#: `may_send`. Those first that were tried least, and those last that were held: what fails again and again, or is
#: not tried at all, keeps nobody waiting (L10).
FIND_OPEN: Final = text(f"""
SELECT {COLUMNS} FROM stripe_increment
WHERE state IN ('pending', 'ambiguous') AND event_at <= :now AND coalesce(sent_to, :books) = :books
  AND (closes_at IS NULL OR closes_at > :now) AND (kind <> 'meter_event' OR event_at > :too_old)
  AND (first_attempt_at IS NULL OR first_attempt_at > :resend_from AND first_attempt_at <= :ahead)
  AND {_LIMITED}
ORDER BY starts_with(reason, '{HELD}'), attempts, increment_id LIMIT :most
""")  # noqa: S608

#: `may_check`. Those first that were looked at longest ago.
FIND_UNCONFIRMED: Final = text(f"""
SELECT {COLUMNS} FROM stripe_increment
WHERE state IN ('sent', 'ambiguous', 'quarantined') AND first_attempt_at IS NOT NULL AND sent_to = :books AND {_LIMITED}
ORDER BY checked_at NULLS FIRST, increment_id LIMIT :most
""")  # noqa: S608

#: Who holds the link of an increment's client decides what is in flight for it; who does not get it leaves it to them.
LOCK_CUSTOMER: Final = text("""
SELECT client_id FROM stripe_customer
WHERE client_id = (SELECT client_id FROM stripe_increment WHERE increment_id = :increment_id)
FOR UPDATE SKIP LOCKED
""")

#: Lock an increment, unless another one of its customer and meter is in flight. Under the lock of the link.
LOCK_FREE: Final = text(f"""
SELECT {COLUMNS} FROM stripe_increment AS free
WHERE increment_id = :increment_id AND NOT EXISTS (
    SELECT FROM stripe_increment AS other
    WHERE other.customer_id = free.customer_id AND other.event_name = free.event_name AND other.state = 'sending'
      AND other.increment_id <> free.increment_id
)
FOR UPDATE SKIP LOCKED
""")  # noqa: S608
LOCK: Final = text(f"SELECT {COLUMNS} FROM stripe_increment WHERE increment_id = :increment_id FOR UPDATE")  # noqa: S608

#: All that is not of a generation: what was found out about an increment.
WRITE: Final = text("""
UPDATE stripe_increment
SET state = :state, reason = :reason, closes_at = :closes_at, attempts = :attempts,
    first_attempt_at = :first_attempt_at, last_attempt_at = :last_attempt_at, sent_to = :sent_to,
    lease_until = :lease_until, checked_at = :checked_at, absent_since = :absent_since,
    absence_checks = :absence_checks, confirmed_at = :confirmed_at, withdrawn_at = :withdrawn_at
WHERE increment_id = :increment_id
""")
BEGIN_ATTEMPT: Final = text("""
INSERT INTO stripe_attempt (increment_id, attempt, idempotency_key, started_at)
VALUES (:increment_id, :attempt, :idempotency_key, :started_at)
""")
NOTE_ATTEMPT: Final = text("""
UPDATE stripe_attempt
SET finished_at = :finished_at, outcome = :outcome, http_status = :http_status, request_id = :request_id,
    reason = :reason
WHERE increment_id = :increment_id AND attempt = :attempt
""")

#: What a sink reported, once, with the increments whose calls it names.
FIND_NAMED: Final = text("""
SELECT DISTINCT increment_id FROM stripe_attempt WHERE idempotency_key = ANY (CAST(:samples AS text[]))
ORDER BY increment_id
""")
ADD_REPORT: Final = text("""
INSERT INTO stripe_error_report (event_id, event_name, code, count, window_start, window_end, samples, increments,
                                 noted_at)
VALUES (:event_id, :event_name, :code, :count, :window_start, :window_end, :samples, :increments, :now)
ON CONFLICT (event_id) DO NOTHING
""").bindparams(bindparam("samples", type_=JSONB), bindparam("increments", type_=JSONB))
REPORTED_UNTIL: Final = text("SELECT max(window_end) FROM stripe_error_report")

#: Generations that were given up after a call, each minute once.
SENT_BEFORE: Final = text("""
SELECT DISTINCT ON (earlier.kind, earlier.customer_id, earlier.event_at)
       earlier.kind, earlier.identifier, increment.event_name, earlier.customer_id, increment.units, earlier.event_at,
       earlier.period_start, earlier.period_end
FROM stripe_increment AS increment JOIN stripe_generation AS earlier USING (increment_id)
WHERE increment.increment_id = :increment_id AND earlier.generation < increment.generation
  AND (earlier.kind, earlier.customer_id, earlier.event_at)
      <> (increment.kind, increment.customer_id, increment.event_at)
  AND EXISTS (SELECT FROM stripe_attempt AS call WHERE call.increment_id = increment.increment_id
              AND split_part(call.idempotency_key, '#', 1) = earlier.identifier)
ORDER BY earlier.kind, earlier.customer_id, earlier.event_at, earlier.generation
""")

#: `doubts`: a report about calls that it does not name, of which one may be this increment's.
DOUBTED_BY: Final = text("""
SELECT report.code
FROM stripe_increment AS increment
JOIN stripe_attempt AS attempt ON attempt.increment_id = increment.increment_id
JOIN stripe_error_report AS report ON report.event_name IN (increment.event_name, '')
 AND report.window_end >= attempt.started_at - CAST(:margin AS interval)
 AND report.window_start <= coalesce(attempt.finished_at, attempt.started_at + CAST(:lease AS interval))
                            + CAST(:margin AS interval)
WHERE increment.increment_id = :increment_id AND report.count > jsonb_array_length(report.increments)
ORDER BY report.window_end, report.event_id LIMIT 1
""")

#: What a person says of an increment, once per generation.
FIND_RESOLUTION: Final = text("""
SELECT reason FROM stripe_resolution
WHERE increment_id = :increment_id AND generation = :generation AND resolved_as = :resolved_as
""")
ADD_RESOLUTION: Final = text("""
INSERT INTO stripe_resolution (increment_id, generation, resolved_as, was, reason, resolved_at)
VALUES (:increment_id, :generation, :resolved_as, :was, :reason, :resolved_at)
""")
