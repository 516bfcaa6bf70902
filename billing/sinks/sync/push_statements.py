"""The SQL of a push. An attempt is on record before its call; an answer is noted only by the attempt that got it."""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

#: Whose pusher died, or hung for longer than its lease: the call may have been made. A lease that ends after `:longest`
#: is of a clock that was set back since.
FIND_LOST: Final = text("""
WITH lost AS (
    UPDATE stripe_increment SET state = 'ambiguous', lease_until = NULL,
           reason = 'the pusher that sent it ended before it had noted an answer'
    WHERE state = 'sending' AND (lease_until < :now OR lease_until > :longest)
    RETURNING increment_id, attempts
)
UPDATE stripe_attempt AS attempt SET outcome = 'unknown', finished_at = :now, reason = 'the pusher ended'
FROM lost
WHERE attempt.increment_id = lost.increment_id AND attempt.attempt = lost.attempts AND attempt.outcome IS NULL
""")

#: Stripe may have forgotten these identifiers: sent again, they might be counted again (L8). Of a first attempt after
#: `:ahead` it is not known how long ago it was.
QUARANTINE_OLD: Final = text("""
UPDATE stripe_increment SET state = 'quarantined',
       reason = 'whether Stripe took it is not known, and '
           || CASE WHEN first_attempt_at > :ahead THEN 'the clock was set back: it may be' ELSE 'it is' END
           || ' too late to ask by sending it again; ' || reason
WHERE state = 'ambiguous' AND (first_attempt_at <= :resend_from OR first_attempt_at > :ahead)
""")

#: What may be sent to these books, those first that were tried least, so that what fails again and again keeps nobody
#: waiting (L10). Stripe refuses for good what lies in the future: what a clock that is ahead has planned waits.
FIND_OPEN: Final = text("""
SELECT increment_id, client_id, customer_id, event_name, units, event_at, identifier
FROM stripe_increment
WHERE state IN ('pending', 'ambiguous') AND event_name = :event_name AND coalesce(sent_to, :books) = :books
  AND event_at <= :now
ORDER BY attempts, increment_id LIMIT :most
""")

#: Who holds a customer's link decides what is in flight for it; who does not get it leaves the customer to the holder.
LOCK_CUSTOMER: Final = text("""
SELECT client_id FROM stripe_customer WHERE client_id = :client_id FOR UPDATE SKIP LOCKED
""")

#: Take an increment, unless another one of its customer and meter is in flight; write the attempt down. What other
#: books may have counted is not sent to these: they do not know its identifier.
CLAIM: Final = text("""
WITH claimed AS (
    SELECT increment_id, state, attempts + 1 AS attempt, identifier || '#' || (attempts + 1) AS idempotency_key
    FROM stripe_increment AS open
    WHERE increment_id = :increment_id AND state IN ('pending', 'ambiguous')
      AND (first_attempt_at IS NULL OR first_attempt_at > :resend_from AND first_attempt_at <= :ahead)
      AND coalesce(sent_to, :books) = :books AND event_at <= :now
      AND NOT EXISTS (
          SELECT FROM stripe_increment AS other
          WHERE other.customer_id = open.customer_id AND other.event_name = open.event_name AND other.state = 'sending'
      )
    FOR UPDATE
), moved AS (
    UPDATE stripe_increment AS increment
    SET state = 'sending', attempts = claimed.attempt, first_attempt_at = coalesce(first_attempt_at, :now),
        last_attempt_at = :now, lease_until = :lease_until, sent_to = :books
    FROM claimed WHERE increment.increment_id = claimed.increment_id
), noted AS (
    INSERT INTO stripe_attempt (increment_id, attempt, idempotency_key, started_at)
    SELECT increment_id, attempt, idempotency_key, :now FROM claimed
)
SELECT attempt, idempotency_key, state = 'ambiguous' AS doubted FROM claimed
""")

#: Note an answer. An attempt that was taken for lost meanwhile still says what it learned, and one that was given up
#: says that Stripe has it; a later attempt is not touched.
NOTE_INCREMENT: Final = text("""
UPDATE stripe_increment
SET state = :state, reason = :reason, lease_until = NULL,
    first_attempt_at = CASE WHEN :state = 'pending' THEN NULL ELSE first_attempt_at END,
    sent_to = CASE WHEN :state = 'pending' THEN NULL ELSE sent_to END
WHERE increment_id = :increment_id AND attempts = :attempt
  AND (state IN ('sending', 'ambiguous') OR state = 'quarantined' AND :state = 'sent')
""")
NOTE_ATTEMPT: Final = text("""
UPDATE stripe_attempt
SET finished_at = :now, outcome = :outcome, http_status = :http_status, request_id = :request_id, reason = :reason
WHERE increment_id = :increment_id AND attempt = :attempt
""")

#: What Stripe's summaries may prove: what was sent, and what is in doubt. Those first that were read longest ago.
FIND_UNCONFIRMED: Final = text("""
SELECT increment_id, customer_id, units, event_at, state FROM stripe_increment
WHERE (state IN ('sent', 'ambiguous') OR state = 'quarantined' AND attempts > 0)
  AND event_name = :event_name AND sent_to = :books
ORDER BY checked_at NULLS FIRST, increment_id LIMIT :most
""")
NOTE_CHECK: Final = text("""
UPDATE stripe_increment
SET checked_at = :now,
    state = CASE WHEN :proven THEN 'confirmed' ELSE state END,
    confirmed_at = CASE WHEN :proven THEN CAST(:now AS timestamptz) END,
    reason = CASE WHEN :proven THEN ''
                  WHEN state = 'sent' THEN coalesce(CAST(:reason AS text), '')
                  ELSE coalesce(CAST(:reason AS text), reason) END
WHERE increment_id = :increment_id AND state = :state
""")
