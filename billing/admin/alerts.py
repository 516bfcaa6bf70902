"""Alerts that were raised, and the webhooks that clients get them by. A secret is returned once, when it is made."""

from __future__ import annotations

import base64
import dataclasses
import secrets
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any, Final

from sqlalchemy import ColumnElement, delete, select, update
from sqlalchemy.dialects.postgresql import insert

from billing.admin.access import runtime_for
from billing.catalog import clients as catalog
from billing.connections import postgres
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.core.webhook_url import check_webhook_url
from billing.schema.operations import ALERT_KINDS, alert
from billing.schema.operations import webhook as table

#: L9: alerts that one page of a listing holds at most.
PAGE_MAX: Final = 10_000
_SECRET_BYTES: Final = 32


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Webhook:
    """Where a client's alerts are posted to. Its secret is not shown again."""

    client_id: str
    url: str
    created_at: datetime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AlertRow:
    """An alert and what became of its webhook: `delivery` is pending, delivered, failed, or none without a webhook.

    An alert of the kind `corrupt` has no amounts, and goes to no webhook: `redis_key` has what was `found`. Nor have
    those of the report to Stripe: something was `found` of `increment_id`, or of usage that no increment carries. Of
    `debt` and `top_up_declined` the amounts are in `details`.
    """

    alert_id: int
    client_id: str
    kind: str
    threshold_percent: int
    available: int
    granted: int
    occurred_at: datetime
    delivery: str
    attempts: int
    next_attempt_at: datetime | None
    delivered_at: datetime | None
    reason: str
    redis_key: str
    found: str
    increment_id: int | None
    details: Mapping[str, Any]


_ROW: Final = [alert.c[field.name] for field in dataclasses.fields(AlertRow)]


def alerts(
    settings: Settings,
    *,
    client_id: str | None = None,
    pending: bool = False,
    failed: bool = False,
    kind: str | None = None,
    limit: int = 100,
) -> Sequence[AlertRow]:
    """Return the newest alerts, of one client or of all, of one kind or of all, at most `limit`.

    `pending`: those that wait for an answer; `failed`: those whose webhook took them at no attempt. Both: either.
    Raises `InvalidValue`, and `UnknownClient` for a client that was never added.
    """
    if not 1 <= limit <= PAGE_MAX:
        raise InvalidValue("limit", limit, f"must be from 1 to {PAGE_MAX}")
    deliveries = [name for name, asked in (("pending", pending), ("failed", failed)) if asked]
    wanted: list[ColumnElement[bool]] = [alert.c.delivery.in_(deliveries)] if deliveries else []
    if kind is not None:
        if kind not in ALERT_KINDS:
            raise InvalidValue("kind", kind, f"must be one of {', '.join(ALERT_KINDS)}")
        wanted.append(alert.c.kind == kind)
    with postgres.reaching(settings), runtime_for(settings).engine.connect() as connection:
        if client_id is not None:
            wanted.append(alert.c.client_id == catalog.get_client(connection, client_id).client_id)
        page = select(*_ROW).where(*wanted).order_by(alert.c.alert_id.desc()).limit(limit)
        return [AlertRow(**row) for row in connection.execute(page).mappings()]


def webhook(settings: Settings, client_id: str) -> Webhook | None:
    """Return the webhook of a client, or None. Raises `UnknownClient`."""
    with postgres.reaching(settings), runtime_for(settings).engine.connect() as connection:
        found = catalog.get_client(connection, client_id)
        query = select(table.c.client_id, table.c.url, table.c.created_at).where(table.c.client_id == found.client_id)
        row = connection.execute(query).mappings().one_or_none()
    return None if row is None else Webhook(**row)


def set_webhook(
    settings: Settings, client_id: str, url: str, *, rotate: bool = False, insecure: bool = False
) -> tuple[Webhook, str | None]:
    """Post a client's alerts to a URL from now on; return the webhook, and its secret if one was made.

    A webhook that is there gets the new URL and keeps its secret, unless `rotate` makes a new one. Raises
    `InvalidValue` for a URL that is refused (`insecure` allows http), and `UnknownClient`.
    """
    checked = check_webhook_url(url, insecure=insecure)
    secret = _new_secret()
    with postgres.reaching(settings), runtime_for(settings).engine.begin() as connection:
        found = catalog.get_client(connection, client_id)
        made = insert(table).values(client_id=found.client_id, url=checked, secret=secret)
        changes = {"url": checked, **({"secret": secret} if rotate else {})}
        written = made.on_conflict_do_update(index_elements=["client_id"], set_=changes).returning(*table.c)
        row = connection.execute(written).one()
    shown = Webhook(client_id=row.client_id, url=row.url, created_at=row.created_at)
    return shown, secret if row.secret == secret else None


def rotate_webhook(settings: Settings, client_id: str) -> str:
    """Make a new secret for a client's webhook and return it: what is sent from now on is signed by it."""
    secret = _new_secret()
    with postgres.reaching(settings), runtime_for(settings).engine.begin() as connection:
        found = catalog.get_client(connection, client_id)
        changed = update(table).where(table.c.client_id == found.client_id).values(secret=secret)
        if connection.execute(changed).rowcount == 0:
            raise InvalidValue("client_id", client_id, "has no webhook (see: billing client webhook --help)")
    return secret


def remove_webhook(settings: Settings, client_id: str) -> bool:
    """Remove a client's webhook, and return whether there was one. Alerts that wait for it are not sent any more."""
    with postgres.reaching(settings), runtime_for(settings).engine.begin() as connection:
        found = catalog.get_client(connection, client_id)
        removed = connection.execute(delete(table).where(table.c.client_id == found.client_id)).rowcount
        waiting = (alert.c.client_id == found.client_id, alert.c.delivery == "pending")
        done = {"delivery": "none", "next_attempt_at": None, "reason": "the webhook was removed"}
        connection.execute(update(alert).where(*waiting).values(done))
    return removed > 0


def _new_secret() -> str:
    """Return a secret as Standard Webhooks writes it."""
    return "whsec_" + base64.b64encode(secrets.token_bytes(_SECRET_BYTES)).decode()
