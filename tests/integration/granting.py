"""What the tests of terms and of changes share: a grant, the balance, the ledger, and a loss of everything."""

from __future__ import annotations

import re

import redis
import sqlalchemy

from billing import admin
from billing.core.shards import shard_of
from billing.credits.values import Balance
from billing.ledger.grants import GrantRow
from tests.integration.recovering import SHARDS, Business, a_hold


def grant(business: Business, credits_: int, key: str, **terms: object) -> GrantRow:
    """Grant with terms; the bucket has it at once."""
    row, applied = admin.grant(business.settings, "acme", credits_, key=key, terms=admin.check_terms(**terms))  # type: ignore[arg-type]
    assert applied
    return row


def balance_of(business: Business) -> Balance:
    """Return the balance, held to L2 with all that has ended."""
    balance = business.runtime.buckets.balance("acme")
    assert balance is not None
    used = balance.available + balance.held + balance.spent + balance.expired + balance.voided
    assert balance.granted + balance.owed == used
    return balance


def let_end(business: Business, row: GrantRow) -> None:
    """Let a grant's time be over, in the ledger and in its bucket: no test depends on how fast it comes to that."""
    end = sqlalchemy.text(
        "UPDATE credit_grant SET expires_at = date_trunc('milliseconds', clock_timestamp()) WHERE grant_id = :grant"
        " RETURNING (extract(epoch FROM expires_at) * 1000)::bigint"
    )
    with business.runtime.engine.begin() as connection:
        ends_ms = connection.execute(end, {"grant": row.grant_id}).scalar_one()
    tag = f"{{billing:{shard_of(row.client_id, SHARDS)}}}"
    with redis.Redis.from_url(business.settings.redis_url) as client:
        bucket = bytes(client.get(f"{tag}:bucket:{row.client_id}") or b"").decode()
        ended, found = re.subn(rf"( {row.grant_id}:[\d:]+@\d+),\d+,", rf"\g<1>,{ends_ms},", bucket)
        assert found == 1
        client.set(f"{tag}:bucket:{row.client_id}", ended)
        client.zadd(f"{tag}:expiries", {f"{row.grant_id} {row.client_id}": ends_ms})


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
