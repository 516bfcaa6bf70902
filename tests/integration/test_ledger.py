"""A grant and its ledger entry are one: idempotent by key, exact under concurrency, found until the bucket has it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
import sqlalchemy

from billing.core.credits import CREDITS_MAX
from billing.core.errors import Conflict, InvalidValue, UnknownClient
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.fulfillment.log import UsageLog
from billing.ledger import changes, grants, locks
from billing.ledger.grants import GrantRow
from billing.schema.tables import credit_grant
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration


@pytest.fixture
def grant(engine: sqlalchemy.Engine, clients: Callable[..., None]) -> Callable[..., tuple[GrantRow, bool]]:
    """Return what grants credits to the client acme."""
    clients("acme", "bolt")

    def grant(amount: object = 100, key: object = None, *, client_id: object = "acme") -> tuple[GrantRow, bool]:
        with engine.begin() as connection:
            return grants.add_grant(connection, client_id, amount, key)

    return grant


def entries(session: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    """Return the ledger."""
    return session.execute("SELECT client_id, grant_id, kind, credits FROM ledger_entry ORDER BY entry_id").fetchall()


def test_given_a_grant_when_repeated_with_its_key_then_it_is_the_same_grant_and_one_ledger_entry(
    grant: Callable[..., tuple[GrantRow, bool]], session: psycopg.Connection[Any]
) -> None:
    made, created = grant(100, "order-1")
    assert created
    assert grant(100, "order-1") == (made, False)
    with pytest.raises(Conflict, match=r"^key: 'order-1': was used for a grant of 100 credits, so it cannot grant 101"):
        grant(101, "order-1")
    assert grant(7, "order-1", client_id="bolt")[1]  # a key belongs to its client
    assert [entry[2:] for entry in entries(session)] == [("grant", 100), ("grant", 7)]


def test_given_one_key_when_four_grant_at_once_then_one_grant_is_made(
    grant: Callable[..., tuple[GrantRow, bool]], session: psycopg.Connection[Any]
) -> None:
    with ThreadPoolExecutor(4) as pool:
        made = list(pool.map(lambda _: grant(100, "order-1"), range(8)))
    assert sorted(created for _, created in made) == [False] * 7 + [True]
    assert len({found.grant_id for found, _ in made}) == 1
    assert len(entries(session)) == 1


def test_given_grants_when_not_in_the_bucket_yet_then_they_are_found_oldest_first_until_marked(
    grant: Callable[..., tuple[GrantRow, bool]], engine: sqlalchemy.Engine
) -> None:
    made = [grant(number)[0] for number in (1, 2, 3)]
    first = sqlalchemy.select(credit_grant.c.applied_at).where(credit_grant.c.grant_id == made[0].grant_id)
    with engine.begin() as connection:
        assert grants.unapplied(connection, 2) == made[:2]
        grants.mark_applied(connection, made[0].grant_id)
    with engine.begin() as connection:
        applied_at = connection.scalar(first)
        grants.mark_applied(connection, made[0].grant_id)
        assert connection.scalar(first) == applied_at is not None
        assert grants.unapplied(connection, 9) == made[1:]


def test_l10_what_waits_on_one_shard_leaves_the_others_their_turn(
    grant: Callable[..., tuple[GrantRow, bool]], clients: Callable[..., None], engine: sqlalchemy.Engine
) -> None:
    """Given a shard that takes nothing, with more old rows than a pass looks at, then the others' are among the first.

    A client's own come in their order, grants and changes alike.
    """
    shard = shard_of("acme", Settings().shards)
    dead = [name for name in map(str, range(2_000)) if shard_of(name, Settings().shards) == shard][:12]
    clients(*dead)
    for name in dead:
        grant(1, client_id=name)
    mine = [grant(number, client_id="bolt")[0] for number in (1, 2)]
    with engine.begin() as connection:
        for number, name in enumerate((*dead, "bolt", "bolt")):
            changes.take_credits(connection, name, 1, f"correction-{number}")
        found = grants.unapplied(connection, 4)
        changed = changes.unapplied(connection, 4)
    assert [row for row in found if row.client_id == "bolt"] == mine
    assert [row.client_id for row in found if row.client_id != "bolt"] == dead[:2]
    assert [row.client_id for row in changed].count("bolt") == 2


def test_given_priorities_and_expiries_when_read_then_grants_are_in_burn_order(
    grant: Callable[..., tuple[GrantRow, bool]], engine: sqlalchemy.Engine, session: psycopg.Connection[Any]
) -> None:
    """Priority, then expiry, then creation; what never expires burns last."""
    ids = [grant(number)[0].grant_id for number in (1, 2, 3, 4)]
    session.execute("UPDATE credit_grant SET expires_at = now() + interval '1 day' WHERE credits = 3")
    session.execute("UPDATE credit_grant SET priority = 1 WHERE credits = 4")
    with engine.connect() as connection:
        found = grants.grants_of_shard(connection, shard_of("acme", 64))
    assert found == {"acme": [(ids[3], 4), (ids[2], 3), (ids[0], 1), (ids[1], 2)]}


def test_given_64_grants_with_credits_left_when_one_more_is_granted_then_it_is_refused_until_one_is_spent(
    grant: Callable[..., tuple[GrantRow, bool]], log: UsageLog, engine: sqlalchemy.Engine
) -> None:
    """L9: a bucket holds at most 64 usable grants."""
    first, *_ = [grant(10, f"order-{number}")[0] for number in range(64)]
    with pytest.raises(
        InvalidValue, match=r"^client_id: 'acme': has 64 grants with credits left; a client holds at most"
    ):
        grant(10)
    assert not grant(10, "order-63")[1]  # a repetition is no further grant
    log.write([delivered(usage_event(lines=[paid_line(shares=[(first.grant_id, 10)])]))])
    assert grant(10)[1]
    with engine.connect() as connection:
        assert grants.spent_of_shard(connection, shard_of("acme", 64)) == {"acme": {first.grant_id: 10}}


def test_given_grants_and_debt_when_one_more_would_pass_the_bound_then_it_is_refused_and_nothing_is_stored(
    grant: Callable[..., tuple[GrantRow, bool]], log: UsageLog, session: psycopg.Connection[Any]
) -> None:
    """No sum over a bucket passes 2^53 - 1: what its bucket could never take is in no ledger (L7)."""
    made, _ = grant(CREDITS_MAX - 20, "order-1")
    log.write([delivered(usage_event(lines=[paid_line(shares=[(made.grant_id, 5), (0, 10)])]))])
    rule = r"^credits: 11: must be at most 10: what a client was granted and ever owed stays within 9007199254740991"
    with pytest.raises(InvalidValue, match=rule):
        grant(11, "order-2")
    assert len(entries(session)) == 1
    assert not grant(CREDITS_MAX - 20, "order-1")[1]  # a repetition is no further grant
    assert grant(10, "order-2")[1]
    with pytest.raises(InvalidValue, match=r"^credits: 1: must be at most 0: "):
        grant(1)
    assert grant(CREDITS_MAX, client_id="bolt")[1]


def test_given_four_large_grants_at_once_when_only_one_fits_then_one_is_made(
    grant: Callable[..., tuple[GrantRow, bool]], session: psycopg.Connection[Any]
) -> None:
    """The sum is checked under the client's row lock."""

    def try_grant(number: int) -> bool:
        try:
            return grant(CREDITS_MAX, f"order-{number}")[1]
        except InvalidValue:
            return False

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(try_grant, range(4))) == [False, False, False, True]
    assert len(entries(session)) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"amount": 0}, "credits: 0: must be from 1"),
        ({"amount": -5}, "credits: -5: must be from 1"),
        ({"amount": CREDITS_MAX + 1}, "credits: 9007199254740992: must be from 1"),
        ({"amount": "100"}, "credits: '100': must be a whole number"),
        ({"amount": 1.0}, "credits: 1.0: must be a whole number"),
        ({"key": ""}, "key: '': must be 1 to 255"),
        ({"key": "x\n"}, "key: 'x\\n': must be 1 to 255"),
        ({"client_id": "a b"}, "client_id: 'a b': must be 1 to 128"),
    ],
)
def test_given_a_bad_grant_when_made_then_field_value_and_rule_are_named_and_nothing_is_stored(
    grant: Callable[..., tuple[GrantRow, bool]],
    session: psycopg.Connection[Any],
    change: dict[str, object],
    message: str,
) -> None:
    with pytest.raises(InvalidValue) as caught:
        grant(**change)
    assert message in str(caught.value)
    with pytest.raises(UnknownClient):
        grant(client_id="nobody")
    assert entries(session) == []


def test_given_batches_that_share_a_shard_when_a_rebuild_wants_it_alone_then_it_waits_for_them_and_they_for_it(
    engine: sqlalchemy.Engine, database: Settings
) -> None:
    """L6: shared among batches, exclusive for the rebuild; a recovery has one leader."""
    assert database.shards > 9
    with engine.connect() as batch, engine.connect() as other, engine.connect() as rebuild:
        for connection in (batch, other, rebuild):
            connection.exec_driver_sql("SET lock_timeout = '100ms'")
            connection.commit()
        locks.lock_shards_shared(batch, [9, 3, 3])
        locks.lock_shards_shared(other, [3])
        with pytest.raises(sqlalchemy.exc.OperationalError, match="lock timeout"):
            locks.lock_shard_exclusive(rebuild, 3)
        rebuild.rollback()
        locks.lock_shard_exclusive(rebuild, 4)
        batch.rollback()
        other.rollback()
        locks.lock_shard_exclusive(rebuild, 3)
        with pytest.raises(sqlalchemy.exc.OperationalError, match="lock timeout"):
            locks.lock_shards_shared(other, [3])
        other.rollback()
        assert locks.try_lead_recovery(rebuild, 3)
        assert not locks.try_lead_recovery(other, 3)
        assert locks.try_lead_recovery(other, 4)
