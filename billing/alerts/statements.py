"""The SQL of alerts, named. Times are given by the caller, whose clock decides what is due."""

from __future__ import annotations

from typing import Final

from sqlalchemy import TextClause, text

_COLUMNS: Final = "client_id, kind, threshold_percent, available, granted, occurred_at"

#: Write alerts as they come from the streams; one that is there already stays as it is.
RECORD: Final = text(f"""
    INSERT INTO alert ({_COLUMNS}, source, delivery, next_attempt_at)
    SELECT {", ".join(f"given.{column.strip()}" for column in _COLUMNS.split(","))}, given.source,
           CASE WHEN webhook.client_id IS NULL THEN 'none' ELSE 'pending' END,
           CASE WHEN webhook.client_id IS NULL THEN NULL ELSE CAST(:now AS timestamptz) END
    FROM unnest(
        CAST(:clients AS text[]), CAST(:kinds AS text[]), CAST(:percents AS integer[]), CAST(:available AS bigint[]),
        CAST(:granted AS bigint[]), CAST(:times AS timestamptz[]), CAST(:sources AS text[])
    ) WITH ORDINALITY AS given ({_COLUMNS}, source, place)
    LEFT JOIN webhook ON webhook.client_id = given.client_id
    ORDER BY given.place
    ON CONFLICT (source) DO NOTHING
""")  # noqa: S608 - columns of our own

#: Take the oldest alert of each client whose signal is not sent, unless somebody is at it, for long enough to call the
#: receivers. None is locked while they are called: they are anybody's code and may take their time (L10).
ANNOUNCING: Final = text(f"""
    WITH claimed AS MATERIALIZED (
        SELECT alert_id FROM alert AS due
        WHERE announced_at IS NULL AND (announcing_until IS NULL OR announcing_until <= :now)
          AND NOT client_id = ANY(CAST(:busy AS text[]))
          AND NOT EXISTS (
              SELECT FROM alert AS older
              WHERE older.client_id = due.client_id AND older.announced_at IS NULL AND older.alert_id < due.alert_id
          )
        ORDER BY alert_id LIMIT :count FOR UPDATE SKIP LOCKED
    )
    UPDATE alert SET announcing_until = :claimed_until FROM claimed WHERE alert.alert_id = claimed.alert_id
    RETURNING alert.alert_id, {_COLUMNS}, redis_key, found, increment_id
""")  # noqa: S608 - see above

#: Note that their signals are sent; return the kinds of those of which nobody has noted it before.
ANNOUNCED: Final = text("""
    UPDATE alert SET announced_at = :now, announcing_until = NULL
    WHERE alert_id = ANY(:alerts) AND announced_at IS NULL
    RETURNING kind
""")

#: Close what is due but has no attempt left, or no webhook any more.
GIVE_UP: Final = text("""
    UPDATE alert SET next_attempt_at = NULL,
        delivery = CASE WHEN EXISTS (SELECT FROM webhook WHERE webhook.client_id = alert.client_id)
                        THEN 'failed' ELSE 'none' END
    WHERE delivery = 'pending' AND next_attempt_at <= :now
      AND (attempts >= :attempts_max OR NOT EXISTS (SELECT FROM webhook WHERE webhook.client_id = alert.client_id))
""")

#: Take the oldest due alert of each client that has no call of this worker under way, for long enough to make the call.
#: A claim that is not followed by an answer (the worker died) is due again when it has run out. Materialized, since a
#: part with LIMIT that a plan looked at twice would take more.
CLAIM: Final = text(f"""
    WITH claimed AS MATERIALIZED (
        SELECT alert_id FROM alert AS due
        WHERE delivery = 'pending' AND next_attempt_at <= :now AND NOT client_id = ANY(CAST(:busy AS text[]))
          AND EXISTS (SELECT FROM webhook WHERE webhook.client_id = due.client_id)
          AND NOT EXISTS (
              SELECT FROM alert AS older
              WHERE older.client_id = due.client_id AND older.delivery = 'pending'
                AND older.next_attempt_at <= :now AND older.alert_id < due.alert_id
          )
        ORDER BY next_attempt_at LIMIT :count FOR UPDATE SKIP LOCKED
    )
    UPDATE alert SET attempts = attempts + 1, next_attempt_at = :claimed_until FROM claimed, webhook
    WHERE alert.alert_id = claimed.alert_id AND webhook.client_id = alert.client_id
    RETURNING alert.alert_id, {", ".join(f"alert.{column.strip()}" for column in _COLUMNS.split(","))},
              found, increment_id, attempts, url, secret
""")  # noqa: S608 - see above


def _outcome(assignments: str) -> TextClause:
    """Return the update of one claimed alert. An answer that came after its claim ran out changes nothing."""
    return text(
        f"UPDATE alert SET {assignments} WHERE alert_id = :alert AND delivery = 'pending' AND attempts = :attempts"  # noqa: S608 - see above
    )


DELIVERED: Final = _outcome("delivery = 'delivered', delivered_at = :now, next_attempt_at = NULL, reason = ''")
FAILED: Final = _outcome("delivery = 'failed', next_attempt_at = NULL, reason = :reason")
AGAIN: Final = _outcome("next_attempt_at = :due, reason = :reason")

#: Forget old alerts that nothing waits for, some at a time (L9).
PRUNE: Final = text("""
    DELETE FROM alert WHERE alert_id IN (
        SELECT alert_id FROM alert
        WHERE occurred_at < :before AND delivery <> 'pending' AND announced_at IS NOT NULL
        ORDER BY alert_id LIMIT :count
    )
""")
