"""What the tests of terms and of changes share: a grant, the balance, the ledger, and a loss of everything."""

from __future__ import annotations

import redis
import sqlalchemy

from billing import admin
from billing.core.clock import from_milliseconds
from billing.core.shards import shard_of
from billing.credits.keys import shard_keys
from billing.credits.values import Balance
from billing.ledger.grants import GrantRow
from billing.schema.tables import credit_grant
from tests.contract.passing import end_grant
from tests.integration.recovering import SHARDS, Business, a_hold


def grant(business: Business, credits_: int, key: str, **terms: object) -> GrantRow:
    """Grant with terms; the bucket has it at once."""
    row, applied = admin.grant(business.settings, "acme", credits_, key=key, terms=admin.check_terms(**terms))  # type: ignore[arg-type]
    assert applied
    return row


def end(business: Business, row: GrantRow) -> None:
    """Have the time of a grant with an expiry be over now, in ledger and bucket."""
    with redis.Redis.from_url(business.settings.redis_url) as client:
        expires_ms = end_grant(client, row.client_id, row.grant_id, SHARDS)
    with business.runtime.engine.begin() as connection:
        query = sqlalchemy.update(credit_grant).where(credit_grant.c.grant_id == row.grant_id)
        connection.execute(query.values(expires_at=from_milliseconds(expires_ms)))


def next_turn(business: Business, row: GrantRow) -> None:
    """Have the sweep of ended grants look at this one now, not a lease after it last did."""
    with redis.Redis.from_url(business.settings.redis_url) as client:
        client.zadd(shard_keys(shard_of("acme", SHARDS)).expiries, {f"{row.grant_id} acme": 1})


def balance_of(business: Business) -> Balance:
    """Return the balance, held to L2 with all that has ended."""
    balance = business.runtime.buckets.balance("acme")
    assert balance is not None
    used = balance.available + balance.held + balance.spent + balance.expired + balance.voided
    assert balance.granted + balance.owed == used
    return balance


def entries(business: Business) -> list[tuple[str, int]]:
    """Return the ledger's kinds and credits."""
    with business.runtime.engine.connect() as connection:
        rows = connection.execute(sqlalchemy.text("SELECT kind, credits FROM ledger_entry ORDER BY entry_id"))
        return [(row.kind, row.credits) for row in rows]


def rebuild(business: Business) -> None:
    """Lose everything, assert what runs, and rebuild."""
    running = [
        a_hold("acme", hold.credits, task)
        for task in "abc"
        for hold in business.runtime.buckets.held("acme")
        if hold.run_id == a_hold("acme", 1, task).run_id
    ]
    business.lose()
    business.assert_running(*running)
    assert business.rebuilder.step() == 1
