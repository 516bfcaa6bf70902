"""What a client had in the past."""

from __future__ import annotations

from datetime import UTC, datetime

from billing.admin.access import runtime_for
from billing.catalog import clients as catalog
from billing.connections import postgres
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.ledger.past import PastBalance, past_balance

__all__ = ["PastBalance", "balance_at"]


def balance_at(settings: Settings, client_id: str, at: datetime) -> PastBalance:
    """Return what a client had at a past instant, by the ledger and the log. Raises `UnknownClient`."""
    runtime = runtime_for(settings)
    if at.tzinfo is None:
        raise InvalidValue("at", at, "must be an aware datetime")
    now = runtime.clock.now()
    if at > now:
        rule = f"must not be after the present, {now.astimezone(UTC).isoformat()}"
        raise InvalidValue("at", at.isoformat(), rule)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        catalog.get_client(connection, client_id)
        return past_balance(connection, client_id, at)
