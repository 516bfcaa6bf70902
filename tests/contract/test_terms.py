"""Grants with terms, overdraft and states, each law by a case of its own (L1, L2)."""

from __future__ import annotations

import json
from uuid import UUID

import pytest

from billing.core.shards import shard_of
from billing.credits.granting import AdjustOutcome, TermsOutcome, VoidOutcome
from billing.credits.terms import ClientState, ClientTerms, GrantTerms
from billing.credits.values import (
    Balance,
    GrantOutcome,
    ReleaseOutcome,
    RenewOutcome,
    ReserveOutcome,
    SettleOutcome,
)
from billing.credits.verbs import Verbs
from tests.contract.laws import assert_laws
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.passing import end_grant
from tests.contract.servers import FUTURE_MS, SHARDS, Server

SHARD = shard_of("acme", SHARDS)


def balance_of(buckets: Verbs) -> Balance:
    """Read a balance and hold it to the laws."""
    balance = buckets.balance("acme")
    assert balance is not None
    assert_laws(balance)
    return balance


def grants_of(buckets: Verbs, run: UUID) -> dict[int, int]:
    """Return what each grant lent to a hold."""
    return next(dict(hold.grants) for hold in buckets.held("acme") if hold.run_id == run)


def paid_by(event: bytes | None) -> list[dict[str, int]]:
    """Return who paid each line of an event."""
    return [
        {str(share["grant"]): share["credits"] for share in line["grants"]}
        for line in json.loads(event or b"")["lines"]
    ]


def will_end(buckets: Verbs) -> None:
    """Give a grant of 100 that ends when the test says so, by `end_grant`."""
    buckets.open_client("acme")
    assert buckets.grant("acme", 1, 100, GrantTerms(expires_ms=FUTURE_MS)) is GrantOutcome.GRANTED


def test_burn_order_is_priority_then_expiry_then_id(buckets: Verbs) -> None:
    buckets.open_client("acme")
    for grant_id, priority, expires_ms in (
        (1, 100, 0),
        (2, 100, FUTURE_MS + 1),
        (3, 200, FUTURE_MS),
        (4, 10, 0),
        (5, 100, FUTURE_MS),
        (6, 100, 0),
        (7, 100, FUTURE_MS),
    ):
        buckets.grant("acme", grant_id, 10, GrantTerms(priority=priority, expires_ms=expires_ms))
    assert balance_of(buckets).order == (4, 5, 7, 2, 1, 6, 3)
    run = a_run()
    buckets.reserve(a_hold(run, 35))
    assert grants_of(buckets, run) == {4: 10, 5: 10, 7: 10, 2: 5}


def test_l1_a_grant_pays_until_the_millisecond_of_its_expiry_and_nothing_after(buckets: Verbs, server: Server) -> None:
    will_end(buckets)
    assert buckets.reserve(a_hold(a_run(task_id="in time"), 10)).outcome is ReserveOutcome.HELD
    end_grant(server.client(), "acme", 1)
    refused = buckets.reserve(a_hold(a_run(task_id="too late"), 1))
    assert (refused.outcome, refused.available) == (ReserveOutcome.INSUFFICIENT, 0)
    balance = balance_of(buckets)
    assert (balance.available, balance.held, balance.expired) == (0, 10, 90), "before lapse has run, too"


def test_a_hold_keeps_what_it_was_lent_and_gives_the_rest_back_as_expired(buckets: Verbs, server: Server) -> None:
    will_end(buckets)
    used, freed = a_run(task_id="used"), a_run(task_id="freed")
    for run in (used, freed):
        assert buckets.reserve(a_hold(run, 30)).outcome is ReserveOutcome.HELD
    assert buckets.endings_due([SHARD]) == []
    end_grant(server.client(), "acme", 1)
    other = (SHARD + 1) % SHARDS
    assert (buckets.endings_due([SHARD, other]), buckets.endings_due([other])) == ([SHARD], [])
    assert buckets.endings_due() == [SHARD]
    assert buckets.lapse(SHARD, 10) == [], "a hold may still give something back"
    reply = buckets.settle(a_settlement(used, 20))
    assert (reply.outcome, reply.debt, paid_by(reply.event)) == (SettleOutcome.SETTLED, 0, [{"1": 20}])
    assert buckets.release("acme", freed, "first") is ReleaseOutcome.RELEASED
    (grant,) = balance_of(buckets).grants
    assert (grant.available, grant.held, grant.spent, grant.expired) == (0, 0, 20, 80)


@pytest.mark.raw("brings a grant's next turn forward by hand")
def test_lapse_names_the_final_amount_again_and_again_until_it_is_forgotten(buckets: Verbs, server: Server) -> None:
    will_end(buckets)
    buckets.settle(a_settlement(a_run(), 40))
    assert buckets.lapse(SHARD, 10) == [], "its time is not over"
    assert server.client().zscore(f"{{billing:{SHARD}}}:expiries", "1 acme") == FUTURE_MS
    end_grant(server.client(), "acme", 1)
    (lapsed,) = buckets.lapse(SHARD, 10)
    assert (lapsed.client_id, lapsed.grant_id, lapsed.expired, lapsed.voided) == ("acme", 1, 60, 0)
    assert buckets.lapse(SHARD, 10) == [], "its next turn comes after a while"
    (name,) = server.client().keys(f"{{billing:{SHARD}}}:expiries")
    server.client().zadd(name, {"1 acme": 1})
    assert buckets.lapse(SHARD, 10) == [lapsed], "whoever died before the ledger had it hears it again"
    buckets.forget_lapsed([lapsed])
    assert server.client().zcard(name) == 0
    assert balance_of(buckets).expired == 60


def test_what_comes_back_to_a_grant_that_has_ended_pays_no_debt(buckets: Verbs, server: Server) -> None:
    will_end(buckets)
    run = a_run(task_id="held")
    buckets.reserve(a_hold(run, 100))
    assert buckets.settle(a_settlement(a_run(task_id="late"), 7)).debt == 7
    end_grant(server.client(), "acme", 1)
    buckets.release("acme", run, "first")
    assert (balance_of(buckets).owed, balance_of(buckets).expired) == (7, 100)


def test_a_restricted_grant_pays_its_skus_alone(buckets: Verbs) -> None:
    buckets.open_client("acme")
    buckets.grant("acme", 1, 50, GrantTerms(skus=("image", "video")))
    buckets.grant("acme", 2, 10)
    page, image = a_run(task_id="page"), a_run(task_id="image")
    refused = buckets.reserve(a_hold(page, 11, sku="page"))
    assert (refused.outcome, refused.available) == (ReserveOutcome.INSUFFICIENT, 10)
    assert buckets.reserve(a_hold(image, 55, sku="image")).outcome is ReserveOutcome.HELD
    assert grants_of(buckets, image) == {1: 50, 2: 5}
    reply = buckets.settle(a_settlement(image, 8, 40, skus=("page", "image")))
    assert paid_by(reply.event) == [{"2": 8}, {"1": 40}], "each line by what may pay for it"
    assert balance_of(buckets).available == 12


def test_a_restricted_grant_pays_no_debt_and_a_later_one_for_every_sku_does(buckets: Verbs) -> None:
    buckets.open_client("acme")
    assert buckets.settle(a_settlement(a_run(), 20)).debt == 20
    buckets.grant("acme", 1, 50, GrantTerms(skus=("image",)))
    assert (balance_of(buckets).owed, balance_of(buckets).available) == (20, 50)
    assert buckets.reserve(a_hold(a_run(task_id="t2"), 1, sku="image")).outcome is ReserveOutcome.INSUFFICIENT
    buckets.grant("acme", 2, 25)
    assert (balance_of(buckets).owed, balance_of(buckets).available) == (0, 55)
    assert buckets.reserve(a_hold(a_run(task_id="t2"), 50, sku="image")).outcome is ReserveOutcome.HELD


def test_a_void_takes_what_is_available_and_leaves_holds_alone(buckets: Verbs) -> None:
    a_client(buckets, 100, 10)
    used, freed = a_run(task_id="used"), a_run(task_id="freed")
    for run in (used, freed):
        buckets.reserve(a_hold(run, 30))
    assert buckets.void("acme", 1) is VoidOutcome.VOIDED
    assert buckets.void("acme", 1) is VoidOutcome.ALREADY
    assert buckets.void("acme", 9) is VoidOutcome.UNKNOWN_GRANT
    assert buckets.void("globex", 1) is VoidOutcome.UNKNOWN_CLIENT
    assert (balance_of(buckets).available, balance_of(buckets).held, balance_of(buckets).voided) == (10, 60, 40)
    assert buckets.settle(a_settlement(used, 30)).debt == 0
    assert buckets.lapse(SHARD, 10) == []
    buckets.release("acme", freed, "first")
    assert balance_of(buckets).voided == 70


def test_a_voided_grant_lapses_too(buckets: Verbs) -> None:
    a_client(buckets, 100)
    buckets.settle(a_settlement(a_run(), 1))
    buckets.void("acme", 1)
    (lapsed,) = buckets.lapse(SHARD, 10)
    assert (lapsed.expired, lapsed.voided) == (0, 99)


def test_an_adjustment_takes_in_burn_order_once_and_the_rest_is_debt(buckets: Verbs) -> None:
    a_client(buckets, 10, 20)
    first = buckets.adjust("acme", 1, 15)
    assert (first.outcome, first.grants) == (AdjustOutcome.ADJUSTED, {1: 10, 2: 5})
    assert buckets.adjust("acme", 1, 15).outcome is AdjustOutcome.ALREADY
    assert buckets.adjust("acme", 1, 15).grants == first.grants
    assert buckets.adjust("acme", 2, 20).grants == {2: 15, 0: 5}
    balance = balance_of(buckets)
    assert (balance.available, balance.owed, balance.voided) == (0, 5, 35)
    buckets.grant("acme", 3, 8)
    assert (balance_of(buckets).available, balance_of(buckets).owed) == (3, 0)


def test_l1_the_overdraft_is_lent_up_to_its_limit_and_given_back(buckets: Verbs) -> None:
    a_client(buckets, 10)
    assert buckets.set_terms("acme", ClientTerms(overdraft_limit=50)) is TermsOutcome.SET
    run = a_run(task_id="one")
    assert buckets.reserve(a_hold(run, 40)).outcome is ReserveOutcome.HELD
    assert grants_of(buckets, run) == {1: 10, 0: 30}
    balance = balance_of(buckets)
    assert (balance.owed, balance.room, balance.held) == (30, 30, 40)
    refused = buckets.reserve(a_hold(a_run(task_id="two"), 21))
    assert (refused.outcome, refused.available) == (ReserveOutcome.INSUFFICIENT, 20)
    buckets.release("acme", run, "first")
    assert (balance_of(buckets).owed, balance_of(buckets).available) == (0, 10)


def test_a_settle_turns_its_room_back_and_takes_what_has_arrived_meanwhile(buckets: Verbs) -> None:
    a_client(buckets)
    buckets.set_terms("acme", ClientTerms(overdraft_limit=50))
    run = a_run(task_id="one")
    buckets.reserve(a_hold(run, 40))
    buckets.grant("acme", 1, 25)
    assert balance_of(buckets).available == 25, "room is no debt yet"
    reply = buckets.settle(a_settlement(run, 40))
    assert (reply.debt, paid_by(reply.event)) == (15, [{"1": 25, "0": 15}])
    assert (balance_of(buckets).owed, balance_of(buckets).room) == (15, 0)


def test_l1_debt_up_to_the_limit_admits_and_above_it_blocks(buckets: Verbs) -> None:
    a_client(buckets)
    buckets.set_terms("acme", ClientTerms(overdraft_limit=50))
    buckets.settle(a_settlement(a_run(task_id="debt"), 50))
    assert buckets.reserve(a_hold(a_run(task_id="free"), 0)).outcome is ReserveOutcome.HELD
    buckets.settle(a_settlement(a_run(task_id="more"), 1))
    assert buckets.reserve(a_hold(a_run(task_id="refused"), 0)).outcome is ReserveOutcome.INSUFFICIENT


def test_a_suspended_client_reserves_nothing_and_what_runs_is_settled(buckets: Verbs) -> None:
    a_client(buckets, 100)
    runs = [a_run(task_id=name) for name in ("settled", "released", "again")]
    for run in runs:
        buckets.reserve(a_hold(run, 10))
    buckets.set_terms("acme", ClientTerms(state=ClientState.SUSPENDED))
    assert buckets.reserve(a_hold(a_run(task_id="new"), 1)).outcome is ReserveOutcome.SUSPENDED
    assert buckets.reserve(a_hold(runs[2], 10, token="second")).outcome is ReserveOutcome.SUSPENDED
    assert buckets.reserve(a_hold(runs[2], 10)).outcome is ReserveOutcome.TAKEN_OVER, "the same call, the same answer"
    assert buckets.renew([("acme", runs[0], None)]) == [RenewOutcome.RENEWED]
    assert buckets.settle(a_settlement(runs[0], 10)).outcome is SettleOutcome.SETTLED
    assert buckets.release("acme", runs[1], "first") is ReleaseOutcome.RELEASED
    assert buckets.grant("acme", 2, 5) is GrantOutcome.GRANTED
    buckets.set_terms("acme", ClientTerms())
    assert buckets.reserve(a_hold(a_run(task_id="new"), 1)).outcome is ReserveOutcome.HELD


def test_a_closed_client_reserves_nothing_and_a_grant_that_the_ledger_has_goes_in(buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 10))
    buckets.set_terms("acme", ClientTerms(state=ClientState.CLOSED))
    assert buckets.reserve(a_hold(a_run(task_id="new"), 1)).outcome is ReserveOutcome.CLOSED
    assert buckets.grant("acme", 2, 5) is GrantOutcome.GRANTED
    assert buckets.grant("acme", 1, 100) is GrantOutcome.ALREADY
    assert buckets.settle(a_settlement(run, 10)).outcome is SettleOutcome.SETTLED
    assert (balance_of(buckets).available, balance_of(buckets).terms.state) == (95, ClientState.CLOSED)


@pytest.mark.raw("how a bucket is written")
def test_a_bucket_without_terms_stays_as_short_as_it_was(buckets: Verbs, server: Server) -> None:
    a_client(buckets, 100)
    before = server.client().get(f"{{billing:{SHARD}}}:bucket:acme")
    buckets.set_terms("acme", ClientTerms(state=ClientState.SUSPENDED, overdraft_limit=5))
    assert b"~5,0,s" in (server.client().get(f"{{billing:{SHARD}}}:bucket:acme") or b"")
    buckets.set_terms("acme", ClientTerms())
    assert server.client().get(f"{{billing:{SHARD}}}:bucket:acme") == before
