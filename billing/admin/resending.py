"""Sends alerts to their webhooks once more: by id, or all that failed. The id stays, so that a receiver drops repeats.

Idempotent: what waits for its call already waits on, and is due now. All of it or nothing: an id that is unknown, or
that no webhook is told, refuses the whole.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from typing import Final

from sqlalchemy import Connection, text

from billing.admin.access import runtime_for
from billing.catalog import clients as catalog
from billing.connections import postgres
from billing.core.change_log import ALERTS, log_change
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.schema.operations import TOLD_TO_CLIENTS

#: L9: alerts that one call sends again at most, the oldest first.
RESENT_MAX: Final = 10_000
_ID_MAX: Final = 2**63 - 1
#: What a call that is under way has, beyond its bound, to have its answer written: it is left alone.
_UNDER_WAY: Final = timedelta(seconds=5)

_ASKED: Final = text("""
    SELECT alert_id, alert.client_id, kind, webhook.client_id IS NOT NULL AS has_webhook
    FROM alert LEFT JOIN webhook USING (client_id)
    WHERE alert_id = ANY(CAST(:alerts AS bigint[]))
""")

_FAILED: Final = text("""
    SELECT alert_id FROM alert JOIN webhook USING (client_id)
    WHERE delivery = 'failed' AND (CAST(:client AS text) IS NULL OR client_id = :client)
    ORDER BY alert_id LIMIT :most
""")

#: All attempts anew for those that have ended; those that wait are due now, but for one whose call is under way.
_RESEND: Final = text("""
    WITH chosen AS (
        SELECT alert_id FROM alert
        WHERE alert_id = ANY(CAST(:alerts AS bigint[])) AND (delivery <> 'pending' OR next_attempt_at > :under_way)
        ORDER BY alert_id FOR UPDATE
    )
    UPDATE alert SET
        attempts = CASE WHEN delivery = 'pending' THEN attempts ELSE 0 END,
        reason = CASE WHEN delivery = 'pending' THEN reason ELSE '' END,
        delivery = 'pending', next_attempt_at = :now, delivered_at = NULL
    FROM chosen WHERE alert.alert_id = chosen.alert_id
""")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Resent:
    """The alerts that go out again, by id. `more`: others failed too, and are left to the next call."""

    alert_ids: Sequence[int]
    more: bool = False


def resend_alerts(
    settings: Settings, alert_ids: Sequence[int] = (), *, client_id: str | None = None, failed: bool = False
) -> Resent:
    """Have alerts posted again from now on: these, or all that `failed`, of one client or of all.

    Raises `InvalidValue` for an id that is unknown or that no webhook is told, and for a client without a webhook;
    `UnknownClient`.
    """
    asked = _checked(alert_ids, client_id=client_id, failed=failed)
    runtime = runtime_for(settings)
    now = runtime.clock.now()
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        more = False
        if asked:
            _check_known(connection, asked)
        else:
            if client_id is not None:
                _check_client(connection, client_id)
            given = {"client": client_id, "most": RESENT_MAX + 1}
            found = list(connection.execute(_FAILED, given).scalars())
            asked, more = found[:RESENT_MAX], len(found) > RESENT_MAX
        under_way = now + timedelta(seconds=settings.webhook_timeout_seconds) + _UNDER_WAY
        connection.execute(_RESEND, {"alerts": asked, "now": now, "under_way": under_way})
    for alert_id in asked:
        log_change(ALERTS, "resent", alert_id=alert_id)
    return Resent(alert_ids=asked, more=more)


def _checked(alert_ids: Sequence[int], *, client_id: str | None, failed: bool) -> list[int]:
    asked = sorted(set(alert_ids))
    if asked and (failed or client_id is not None):
        raise InvalidValue("alert_id", asked[0], "goes with neither --failed nor --client")
    if not asked and not failed:
        raise InvalidValue("alert_id", None, "is missing: name alerts, or --failed with or without --client")
    if len(asked) > RESENT_MAX:
        raise InvalidValue("alert_id", len(asked), f"must be at most {RESENT_MAX} ids")
    for alert_id in asked:
        if not 1 <= alert_id <= _ID_MAX:
            raise InvalidValue("alert_id", alert_id, "is not a known alert (see: billing alerts list)")
    return asked


def _check_known(connection: Connection, asked: Sequence[int]) -> None:
    known = {row.alert_id: row for row in connection.execute(_ASKED, {"alerts": list(asked)})}
    for alert_id in asked:
        row = known.get(alert_id)
        if row is None:
            raise InvalidValue("alert_id", alert_id, "is not a known alert (see: billing alerts list)")
        if row.kind not in TOLD_TO_CLIENTS:
            raise InvalidValue("alert_id", alert_id, f"is of the kind {row.kind}, which no client's webhook is told")
        if not row.has_webhook:
            rule = f"is of client {row.client_id!r}, which has no webhook (see: billing client webhook --help)"
            raise InvalidValue("alert_id", alert_id, rule)


def _check_client(connection: Connection, client_id: str) -> None:
    found = catalog.get_client(connection, client_id)
    there = text("SELECT 1 FROM webhook WHERE client_id = :client")
    if connection.execute(there, {"client": found.client_id}).one_or_none() is None:
        raise InvalidValue("client_id", client_id, "has no webhook (see: billing client webhook --help)")
