"""What a bucket could not take is refused by the ledger, and nothing else is; one key is one thing (L2, L9)."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
import sqlalchemy

from billing import admin
from billing.admin.bulk import grant_each
from billing.core.credits import CREDITS_MAX
from billing.core.errors import Conflict, InvalidValue, Recovering
from billing.core.shards import shard_of
from billing.credits.terms import ClientState
from billing.credits.values import GrantOutcome
from billing.ledger import changes, grants, rebuilds
from billing.ledger.grant_terms import SKUS_OF_CLIENT_MAX, Terms
from billing.ledger.many_grants import add_grants, mark_all_applied
from billing.recovery.changes import apply_changes
from billing.recovery.grants import apply_grants
from tests.integration.granting import balance_of, entries, grant
from tests.integration.recovering import SHARDS, Business

pytestmark = pytest.mark.integration


def test_given_an_adjustment_that_could_pass_the_bound_when_made_then_it_is_refused_at_the_edge(
    business: Business,
) -> None:
    """No sum over a bucket passes 2^53 - 1: what its bucket could never take is in no ledger."""
    grant(business, CREDITS_MAX - 100, "k")
    assert admin.adjust_credits(business.settings, "acme", -40, key="fits")[1]
    assert admin.adjust_credits(business.settings, "acme", -100, key="fits too")[1], "the first became no debt"
    rule = (
        r"^credits: -101: must be at most 100 below 0: what a client was granted and ever owed, .* within 9007199254740"
    )
    with pytest.raises(InvalidValue, match=rule):
        admin.adjust_credits(business.settings, "acme", -101, key="does not fit")
    assert len(entries(business)) == 3
    assert (balance_of(business).voided, balance_of(business).owed) == (140, 0)


def test_given_adjustments_that_wait_when_more_is_granted_or_taken_then_they_count_as_the_debt_that_they_may_be(
    business: Business,
) -> None:
    business.client("bolt")
    for client_id in ("acme", "bolt"):
        business.close_shard(client_id)
    assert not admin.adjust_credits(business.settings, "acme", 10 - CREDITS_MAX, key="minus")[1]
    with pytest.raises(
        InvalidValue, match=r"^credits: 11: must be at most 10: what a client was granted and ever owed"
    ):
        admin.grant(business.settings, "acme", 11)
    with pytest.raises(InvalidValue, match=r"^credits: 11: must be at most 10 for client 'acme': what a client was"):
        grant_each(business.settings, ["bolt", "acme"], 11, key="bulk")
    with pytest.raises(InvalidValue, match=r"^credits: -11: must be at most 10 below 0"):
        admin.adjust_credits(business.settings, "acme", -11)
    assert admin.adjust_credits(business.settings, "acme", 10 - CREDITS_MAX, key="minus")[0].key == "minus", "again"
    for client_id in ("acme", "bolt"):
        business.runtime.buckets.verify(shard_of(client_id, SHARDS), expected=None)
    assert apply_changes(business.runtime) == 1
    assert balance_of(business).owed == CREDITS_MAX - 10
    assert entries(business) == [("adjust", 10 - CREDITS_MAX)]
    with pytest.raises(InvalidValue, match=r"^credits: 11: must be at most 10 for client 'acme': what a client was"):
        grant_each(business.settings, ["bolt", "acme"], 11, key="bulk")
    assert grant(business, 10, "ten").credits == 10


def test_given_64_grants_that_repaid_debt_when_more_are_granted_then_only_those_with_credits_left_count(
    business: Business,
) -> None:
    """L9: what repaid a debt the bucket alone knows; the 65th usable grant is refused, a client with fewer is not."""
    business.settle("acme", 640, "debt", publish=False)
    _bring(business, _made(business, 10, 64))
    assert (balance_of(business).owed, balance_of(business).available) == (0, 0)
    assert grant_each(business.settings, ["acme"], 10, key="bulk") == 1
    made = _made(business, 1, 63)
    for _ in range(2):  # before the bucket has them, and afterwards
        with pytest.raises(InvalidValue, match=r"^client_id: 'acme': has 64 grants with credits left; a client holds"):
            admin.grant(business.settings, "acme", 1)
        with pytest.raises(InvalidValue, match=r"^client_id: 'acme': has 64 grants with credits left; a client holds"):
            grant_each(business.settings, ["acme"], 1, key="one more")
        _bring(business, made)
    assert len(balance_of(business).order) == 64
    business.close_shard("acme")
    with pytest.raises(Recovering, match="acme"):
        admin.grant(business.settings, "acme", 1)


def _made(business: Business, credits_: int, count: int) -> dict[int, int]:
    """Write grants into the ledger alone; return their credits."""
    statement = sqlalchemy.text(
        "INSERT INTO credit_grant (client_id, credits) SELECT 'acme', :credits FROM generate_series(1, :count)"
        " RETURNING grant_id, credits"
    )
    with business.runtime.engine.begin() as connection:
        made = connection.execute(statement, {"credits": credits_, "count": count})
        return {row.grant_id: row.credits for row in made}


def _bring(business: Business, made: dict[int, int]) -> None:
    """Bring grants into their bucket, as the fulfillment worker does in more steps."""
    has_it = (GrantOutcome.GRANTED, GrantOutcome.ALREADY)
    assert all(business.runtime.buckets.grant("acme", *grant) in has_it for grant in made.items())
    with business.runtime.engine.begin() as connection:
        mark_all_applied(connection, made)


def test_given_grants_for_many_skus_when_one_more_would_name_too_many_then_it_is_refused_until_one_is_used_up(
    business: Business,
) -> None:
    """L9: every reserve reads the SKUs of all grants that have credits left."""
    first = None
    for number in range(SKUS_OF_CLIENT_MAX // 32):
        skus = [f"sku-{number}-{place}" for place in range(31)]
        row = grant(business, 10, f"k-{number}", skus=["page", *skus])
        first = first or row
    with pytest.raises(
        InvalidValue, match=r"^skus: 1: must be at most 0: the grants of a client that have credits left"
    ):
        admin.grant(business.settings, "acme", 1, terms=admin.check_terms(skus=["page"]))
    grant(business, 1, "for all")
    business.hold("acme", 10, "a")
    with pytest.raises(InvalidValue, match=r"^skus: 1: must be at most 0"):
        admin.grant(business.settings, "acme", 1, terms=admin.check_terms(skus=["page"]))
    business.settle("acme", 10, "a", publish=False)
    grant(business, 1, "again", skus=["page"])


def test_given_a_key_when_used_for_anything_else_by_a_grant_of_many_then_it_is_a_conflict_and_nobody_is_granted(
    business: Business,
) -> None:
    """The same key with other content is refused, whichever table has it."""
    business.client("bolt")
    settings = business.settings
    row = grant(business, 10, "granted")
    future = datetime.now(UTC) + timedelta(days=1)
    grant(business, 10, "with terms", kind="promo", expires_at=future)
    admin.void(settings, row.grant_id, key="voided")
    admin.adjust_credits(settings, "acme", -3, key="adjusted")
    admin.set_client_state(settings, "acme", "suspended", key="state")
    admin.set_overdraft(settings, "acme", 7, key="overdraft")
    for key, was in (
        ("granted", r"a grant of 10 credits, so it cannot grant 11"),
        ("voided", rf"a void of grant {row.grant_id} of client 'acme', so it cannot be a grant of 11 credits"),
        ("adjusted", r"an adjustment by -3 of client 'acme', so it cannot be a grant of 11 credits"),
        ("state", r"the state suspended of client 'acme', so it cannot be a grant of 11 credits"),
        ("overdraft", r"an overdraft limit of 7 of client 'acme', so it cannot be a grant of 11 credits"),
    ):
        with pytest.raises(Conflict, match=rf"^key: '{key}': was used for {was}"):
            grant_each(settings, ["bolt", "acme"], 11, key=key)
    with pytest.raises(Conflict, match=r"^key: 'with terms': was used for a grant with kind promo, .* so it cannot"):
        grant_each(settings, ["bolt", "acme"], 10, key="with terms")
    assert business.balance("bolt").granted == 0
    assert grant_each(settings, ["bolt"], 10, key="voided") == 1, "a key belongs to its client"
    with pytest.raises(
        Conflict, match=r"^key: 'voided': was used for a grant of 10 credits, so it cannot be the state"
    ):
        admin.set_client_state(settings, "bolt", "suspended", key="voided")


def test_given_a_grant_of_many_when_repeated_after_a_client_was_closed_then_it_is_the_same_grant(
    business: Business,
) -> None:
    business.client("bolt")
    assert grant_each(business.settings, ["acme"], 10, key="bulk") == 1
    admin.set_client_state(business.settings, "acme", "closed")
    assert grant_each(business.settings, ["acme", "bolt"], 10, key="bulk") == 2
    with pytest.raises(InvalidValue, match=r"^client_id: 'acme': is closed: it is granted nothing"):
        grant_each(business.settings, ["acme", "bolt"], 10, key="another")
    assert (balance_of(business).granted, business.balance("bolt").granted) == (10, 10)


def test_given_a_client_closed_between_ledger_and_bucket_when_its_grant_arrives_then_it_goes_in_without_a_rebuild(
    business: Business,
) -> None:
    """L2, L10: ledger and bucket agree, and nobody else of the shard waits for it."""
    with business.runtime.engine.begin() as connection:
        grants.add_grant(connection, "acme", 10, "before", terms=Terms(kind="promo"))
    assert admin.set_client_state(business.settings, "acme", "closed")[1]
    assert apply_grants(business.runtime) == 1
    balance = balance_of(business)
    assert (balance.available, balance.terms.state) == (10, ClientState.CLOSED)
    with business.runtime.engine.begin() as connection:
        assert list(rebuilds.requested(connection)) == []
        with pytest.raises(InvalidValue, match="is closed"):
            add_grants(connection, ["acme"], 10, "after")
        assert changes.unapplied(connection, 10) == []
