"""The SQL of top-ups, named. Times are given by the caller, whose clock decides what is due.

Rows are locked in one order, client, rule, request, and nobody waits for a rule that somebody else is at.
"""

from __future__ import annotations

from typing import Final

from sqlalchemy import text

#: Have these clients' balances looked at before all others.
MAKE_DUE: Final = text("""
    UPDATE top_up_rule SET look_at = to_timestamp(0) WHERE client_id IN (
        SELECT client_id FROM top_up_rule WHERE client_id = ANY(CAST(:clients AS text[]))
        ORDER BY client_id FOR UPDATE
    )
""")

#: Take rules that are due, and say when they are due next. Materialized, since a part with LIMIT that a plan looked at
#: twice would take more.
TAKE_RULES: Final = text("""
    WITH due AS MATERIALIZED (
        SELECT client_id FROM top_up_rule WHERE look_at <= :now
        ORDER BY look_at, client_id LIMIT :count FOR UPDATE SKIP LOCKED
    )
    UPDATE top_up_rule SET look_at = CASE
        WHEN quiet_until > :now THEN least(quiet_until, CAST(:next AS timestamptz)) ELSE :next END
    FROM due WHERE top_up_rule.client_id = due.client_id
    RETURNING top_up_rule.client_id
""")

#: What PostgreSQL knows of these clients' shortfalls. It is read before the balance: what is on its way is then counted
#: twice rather than not at all. `refused`: the newest alert of the end was a refusal that left something.
FACTS: Final = text("""
    SELECT rule.client_id, rule.credits, rule.below_percent, rule.below_credits, rule.cool_off_seconds,
           rule.back_off_seconds, rule.back_off_max_seconds, rule.version,
           client.state = 'active' AS active, rule.quiet_until > :now AS quiet,
           EXISTS (SELECT FROM top_up_request AS open
                   WHERE open.client_id = rule.client_id AND open.state IN ('wanted', 'asked')) AS asking,
           CAST((SELECT coalesce(sum(coming.credits), 0) FROM credit_grant AS coming
                 WHERE coming.client_id = rule.client_id AND coming.applied_at IS NULL) AS bigint) AS coming,
           coalesce((SELECT told.available > 0 FROM alert AS told
                     WHERE told.client_id = rule.client_id AND told.kind = 'exhausted'
                     ORDER BY told.alert_id DESC LIMIT 1), false) AS refused
    FROM top_up_rule AS rule JOIN client USING (client_id)
    WHERE rule.client_id = ANY(CAST(:clients AS text[]))
""")

#: Make the request of each shortfall, unless the rule has moved since its facts were read: then they are stale. Its key
#: is nobody else's, in this database or another.
WANT: Final = text("""
    WITH chosen AS MATERIALIZED (
        SELECT rule.client_id, rule.credits, seen.shortfall, seen.available
        FROM top_up_rule AS rule
        JOIN unnest(CAST(:clients AS text[]), CAST(:versions AS bigint[]), CAST(:shortfalls AS text[]),
                    CAST(:available AS bigint[])) AS seen (client_id, version, shortfall, available) USING (client_id)
        WHERE rule.version = seen.version AND rule.quiet_until <= :now
        ORDER BY rule.client_id FOR UPDATE OF rule SKIP LOCKED
    ), made AS (
        INSERT INTO top_up_request (client_id, key, credits, shortfall, available, next_at, created_at)
        SELECT client_id, 'top-up-' || gen_random_uuid(), credits, shortfall, available, :now, :now FROM chosen
        ON CONFLICT DO NOTHING RETURNING client_id
    )
    UPDATE top_up_rule SET version = version + 1 FROM made WHERE top_up_rule.client_id = made.client_id
    RETURNING top_up_rule.client_id
""")

#: Requests that nobody was asked for yet.
WANTED: Final = text("""
    SELECT request_id, client_id FROM top_up_request WHERE state = 'wanted' AND next_at <= :now
    ORDER BY next_at, request_id LIMIT :count
""")

#: Leave requests alone for a while whose client's balance cannot be read.
WAIT: Final = text("""
    UPDATE top_up_request SET next_at = :next WHERE state = 'wanted' AND request_id = ANY(CAST(:requests AS bigint[]))
""")

#: Open requests whose grant somebody has written under their key.
PAID: Final = text("""
    SELECT request_id FROM top_up_request AS request
    JOIN credit_grant USING (client_id, key)
    WHERE request.state IN ('wanted', 'asked')
    ORDER BY request_id LIMIT :count
""")

#: Asked too often, or for too long.
LAPSED: Final = text("""
    SELECT request_id, answer FROM top_up_request
    WHERE state = 'asked' AND next_at <= :now AND answer <> 'granted'
      AND (attempts >= :attempts_max OR answer = 'pending' OR asked_at <= :asked_before)
    ORDER BY request_id LIMIT :count
""")

#: Take requests for long enough to ask for them, or, paid ones, to grant them; those of clients that a call is under
#: way for are left alone, and so are those that are to lapse: more may be than one step lets, or one may be locked. A
#: claim that no answer follows is due again when it has run out.
CLAIM: Final = text("""
    WITH claimed AS MATERIALIZED (
        SELECT request_id FROM top_up_request
        WHERE next_at <= :now AND (
            state = 'asked' AND answer = 'granted'
            OR :asking AND client_id <> ALL(CAST(:busy AS text[]))
               AND (state = 'asked' AND answer = '' AND attempts < :attempts_max AND asked_at > :asked_before
                    OR state = 'wanted' AND request_id = ANY(CAST(:wanted AS bigint[])))
        )
        ORDER BY next_at, request_id LIMIT :count FOR UPDATE SKIP LOCKED
    )
    UPDATE top_up_request AS request
    SET state = 'asked', attempts = attempts + 1, asked_at = coalesce(asked_at, :now), next_at = :claimed_until
    FROM claimed WHERE request.request_id = claimed.request_id
    RETURNING request.request_id, client_id, key, credits, shortfall, available, attempts, created_at, answer
""")

#: Note how an attempt ended that did not finish its request, unless another one has begun or somebody has finished it.
NOTE: Final = text("""
    UPDATE top_up_request SET answer = :answer, reason = :reason, next_at = :next
    WHERE request_id = :request AND state = 'asked' AND attempts = :attempts
""")

#: The rule of a request's client, kept from others until this transaction ends.
LOCK_RULE: Final = text("""
    SELECT client_id, credits, below_percent, below_credits, cool_off_seconds, back_off_seconds, back_off_max_seconds,
           declines
    FROM top_up_rule WHERE client_id = (SELECT client_id FROM top_up_request WHERE request_id = :request) FOR UPDATE
""")

#: Finish a request once. A grant comes last of all: it may follow a decline, nothing follows it. `attempts`: only if
#: this attempt is still the last one.
FINISH: Final = text("""
    UPDATE top_up_request
    SET state = :state, answer = '', finished_at = :now, reason = :reason, grant_id = CAST(:grant AS bigint)
    WHERE request_id = :request AND state = ANY(CAST(:from AS text[]))
      AND (CAST(:attempts AS integer) IS NULL OR attempts = :attempts)
""")

#: Have a rule rest until an instant.
REST: Final = text("""
    UPDATE top_up_rule SET declines = :declines, quiet_until = :until, look_at = :until, version = version + 1
    WHERE client_id = :client
""")

#: Tell the client, once for each request: in the transaction that declined it, so that neither is without the other.
TELL_DECLINED: Final = text("""
    INSERT INTO alert (client_id, kind, threshold_percent, available, granted, source, occurred_at, delivery,
                       next_attempt_at, found, details)
    SELECT request.client_id, 'top_up_declined', 0, 0, 0, 'top_up:' || request_id, :now,
           CASE WHEN webhook.client_id IS NULL THEN 'none' ELSE 'pending' END,
           CASE WHEN webhook.client_id IS NULL THEN NULL ELSE CAST(:now AS timestamptz) END,
           :found, jsonb_build_object('request_id', request_id, 'credits', credits)
    FROM top_up_request AS request LEFT JOIN webhook USING (client_id)
    WHERE request_id = :request
    ON CONFLICT (source) DO NOTHING
""")
