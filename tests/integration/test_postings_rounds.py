"""Postings are applied in rounds of bounded size, in which no client and no node keeps the others from their turn."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from billing.core.credits import CREDITS_MAX
from billing.core.errors import Unreachable
from billing.core.shards import shard_of
from billing.credits.posting import Posting, PostOutcome
from billing.ledger import postings
from billing.ledger.postings import ClientPostings
from billing.recovery import postings as applying
from billing.recovery.postings import Postings, apply_postings
from tests.integration.consuming import execute, query
from tests.integration.posting import SHARD
from tests.integration.recovering import SHARDS, Business

pytestmark = [pytest.mark.integration, pytest.mark.slow]


def test_given_more_clients_than_a_round_looks_at_when_the_first_are_refused_then_the_next_round_begins_behind_them(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L9, L10: also within one shard."""
    monkeypatch.setattr(applying, "CLIENTS_MAX", 1)
    other = business.client(next(name for name in map("b{}".format, range(1_000)) if shard_of(name, SHARDS) == SHARD))
    with business.runtime.engine.begin() as connection:
        postings.add(connection, "acme", 1, {0: CREDITS_MAX})
        postings.add(connection, "acme", 1, {0: CREDITS_MAX})
        postings.add(connection, other, 1, {0: 5})
    going_round = Postings(business.runtime)
    assert [going_round.step(), going_round.step(), going_round.step()] == [0, 1, 0]
    assert business.balance(other).debt == 5


def test_given_clients_whose_grants_are_on_their_way_when_as_many_come_first_then_those_behind_them_are_told(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L10: there is nothing to tell the first two yet; the next round begins behind them nevertheless."""
    monkeypatch.setattr(applying, "CLIENTS_MAX", 2)
    of_shard = [name for name in map("b{:03}".format, range(1_000)) if shard_of(name, SHARDS) == SHARD]
    *stuck, behind = [business.client(name, 10) for name in of_shard[:3]]
    with business.runtime.engine.begin() as connection:
        for client_id in (*stuck, behind):
            [grant_id] = [one.grant_id for one in business.balance(client_id).grants]
            postings.add(connection, client_id, 1, {grant_id: 4})
    waits = f"UPDATE credit_grant SET applied_at = NULL WHERE client_id <> '{behind}'"
    execute(business.settings, waits)
    going_round = Postings(business.runtime)
    assert [going_round.step(), going_round.step(), going_round.step()] == [0, 1, 0]
    assert business.balance(behind).spent == 4
    execute(business.settings, "UPDATE credit_grant SET applied_at = now()")
    assert apply_postings(business.runtime) == 2


def test_given_servers_that_are_away_when_more_shards_wait_than_a_round_looks_at_then_the_others_have_their_turn(
    business: Business, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L10: a node that is away is waited for once a round, with whatever waits on it."""
    monkeypatch.setattr(applying, "SHARDS_MAX", 3)
    clients = [business.client(f"client-{number}") for number in range(5)]
    order = sorted(clients, key=lambda client_id: shard_of(client_id, SHARDS))
    with business.runtime.engine.begin() as connection:
        for client_id in clients:
            postings.add(connection, client_id, 1, {0: 5})
    asked: list[str] = []
    present = business.runtime.buckets.post

    def post(client_id: str, epoch: int, rows: Sequence[Posting]) -> PostOutcome:
        asked.append(client_id)
        if client_id in order[:4]:
            raise Unreachable("billing_redis_url: does not answer")
        return present(client_id, epoch, rows)

    away = {shard_of(client_id, SHARDS) for client_id in order[:4]}
    monkeypatch.setattr(business.runtime.buckets, "post", post)
    monkeypatch.setattr(business.runtime.buckets, "node_of", lambda shard: "away" if shard in away else "here")
    going_round = Postings(business.runtime)
    with pytest.raises(Unreachable):
        going_round.step()
    assert going_round.step() == 1
    assert asked.count(order[4]) == 1
    assert len(asked) <= 3, "the node that is away was asked once a round"


def test_given_a_total_that_grows_while_it_is_told_then_what_is_noted_never_goes_back_nor_beyond_it(
    business: Business,
) -> None:
    """L2: in whatever order two processes note what they told, the bucket is told the last total, once."""
    told: list[ClientPostings] = []
    with business.runtime.engine.begin() as connection:
        for credits_ in (10, 20):
            postings.add(connection, "acme", 1, {0: credits_})
            told += postings.waiting(connection, 10)
    first, second = told
    ahead = dataclasses.replace(second, rows=tuple(dataclasses.replace(row, version=9) for row in second.rows))

    def noted_after(*noted: ClientPostings) -> int:
        with business.runtime.engine.begin() as connection:
            for one in noted:
                postings.mark_applied(connection, one)
        [(version,)] = query(business.settings, "SELECT applied_version FROM posting")
        return int(version)

    assert noted_after(first, ahead) == 1
    assert apply_postings(business.runtime) == 1
    assert noted_after(first) == 2
    assert business.balance("acme").debt == 30
