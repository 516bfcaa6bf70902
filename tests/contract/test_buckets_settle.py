"""Settling: one charge for ever (L3, L4), exact to the unit and per grant (L2), debt and its repayment."""

from __future__ import annotations

import json
from typing import Any

import pytest

from billing.core.credits import CREDITS_MAX
from billing.core.errors import Conflict, InvalidValue
from billing.core.shards import shard_of
from billing.credits.values import (
    Balance,
    GrantBalance,
    GrantOutcome,
    ReleaseOutcome,
    ReserveOutcome,
    SettleOutcome,
    SettleReply,
)
from billing.credits.verbs import Verbs
from tests.contract.laws import assert_laws
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS, Server, until

SHARD = shard_of("acme", SHARDS)


def balance_of(buckets: Verbs, client_id: str = "acme") -> Balance:
    """Read a balance and hold it to the laws."""
    balance = buckets.balance(client_id)
    assert balance is not None
    assert_laws(balance)
    return balance


def event_of(reply: SettleReply) -> dict[str, Any]:
    """Read the event that a settle wrote."""
    assert reply.event is not None
    event: dict[str, Any] = json.loads(reply.event)
    return event


def test_l3_the_charge_and_its_event_are_one_step(buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 60))
    reply = buckets.settle(a_settlement(run, 60, settlement_id="one"))
    assert (reply.outcome, reply.late, reply.debt, reply.settlement_id) == (SettleOutcome.SETTLED, False, 0, "one")
    event = event_of(reply)
    assert event["lines"] == [{"sku": "sku-0", "quantity": 1, "credits": 60, "grants": [{"grant": 1, "credits": 60}]}]
    assert {key: event[key] for key in ("run_id", "settlement_id", "epoch", "late")} == {
        "run_id": str(run),
        "settlement_id": "one",
        "epoch": 1,
        "late": False,
    }
    (entry,) = buckets.outbox(SHARD, older_than_ms=0, count=10)
    assert (entry.entry_id, entry.event) == (reply.entry_id, reply.event)
    assert balance_of(buckets).grants == (GrantBalance(grant_id=1, granted=100, available=40, spent=60),)
    assert buckets.held("acme") == []


@pytest.mark.raw("a stream whose last id is set by hand")
def test_l3_usage_happens_now_though_the_outbox_counts_on_from_the_future(server: Server, buckets: Verbs) -> None:
    """Given a clock that was a day ahead and came back, when a run settles, then its event says now and is relayed."""
    a_client(buckets, 100)
    client, outbox = server.client(), f"{{billing:{SHARD}}}:outbox"
    now = int(client.time()[0]) * 1_000
    client.xdel(outbox, client.xadd(outbox, {"e": "x"}, id=f"{now + 86_400_000}-0"))
    reply = buckets.settle(a_settlement(a_run(), 1))
    assert reply.entry_id == f"{now + 86_400_000}-1"
    assert now <= event_of(reply)["occurred_at"] <= now + 60_000
    (entry,) = buckets.outbox(SHARD, older_than_ms=5_000, count=10)
    assert (entry.event, entry.age_ms) == (reply.event, 0)


def test_l2_what_was_not_used_goes_back_to_exactly_the_grants_that_lent_it(buckets: Verbs) -> None:
    a_client(buckets, 30, 20, 50)
    run = a_run()
    buckets.reserve(a_hold(run, 60))
    buckets.settle(a_settlement(run, 35))
    assert balance_of(buckets).grants == (
        GrantBalance(grant_id=1, granted=30, spent=30),
        GrantBalance(grant_id=2, granted=20, available=15, spent=5),
        GrantBalance(grant_id=3, granted=50, available=50),
    )


def test_l2_what_was_used_beyond_the_hold_comes_from_the_bucket_then_is_debt(buckets: Verbs) -> None:
    a_client(buckets, 30, 20)
    run = a_run()
    buckets.reserve(a_hold(run, 25))
    reply = buckets.settle(a_settlement(run, 28, 40))
    assert (reply.debt, reply.late) == (18, False)
    assert [line["grants"] for line in event_of(reply)["lines"]] == [
        [{"grant": 1, "credits": 28}],
        [{"grant": 1, "credits": 2}, {"grant": 2, "credits": 20}, {"grant": 0, "credits": 18}],
    ]
    balance = balance_of(buckets)
    assert (balance.owed, balance.debt, balance.available, balance.spent) == (18, 18, 0, 68)


def test_l3_several_lines_are_one_event_and_a_free_line_is_in_it(buckets: Verbs) -> None:
    a_client(buckets, 100)
    reply = buckets.settle(a_settlement(a_run(), 3, 0, 4, skus=["page", "free", "kib"]))
    assert [(line["sku"], line["grants"]) for line in event_of(reply)["lines"]] == [
        ("page", [{"grant": 1, "credits": 3}]),
        ("free", []),
        ("kib", [{"grant": 1, "credits": 4}]),
    ]


def test_l4_a_second_settle_takes_nothing_whatever_its_settlement(buckets: Verbs) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 60))
    first = a_settlement(run, 60)
    written = buckets.settle(first)
    before = balance_of(buckets)
    same = buckets.settle(first)
    assert (same.outcome, same.settlement_id, same.entry_id, same.event) == (
        SettleOutcome.ALREADY,
        first.settlement_id,
        written.entry_id,
        written.event,
    )
    other = buckets.settle(a_settlement(run, 50))
    assert (other.outcome, other.settlement_id, other.event) == (SettleOutcome.ALREADY, first.settlement_id, None)
    assert written.entry_id is not None
    buckets.forget([(SHARD, written.entry_id)])
    assert buckets.settle(first).event is None
    assert balance_of(buckets) == before
    assert buckets.outbox_depth(SHARD) == 0
    assert buckets.release("acme", run, "first") is ReleaseOutcome.SETTLED


def test_l4_work_that_finishes_after_its_hold_is_gone_is_charged_and_says_so(buckets: Verbs) -> None:
    a_client(buckets, 50, 50)
    run = a_run()
    buckets.reserve(a_hold(run, 60))
    assert buckets.release("acme", run, "first") is ReleaseOutcome.RELEASED
    reply = buckets.settle(a_settlement(run, 120))
    assert (reply.outcome, reply.late, reply.debt) == (SettleOutcome.SETTLED, True, 20)
    assert event_of(reply)["late"] is True
    assert balance_of(buckets).owed == 20


def test_debt_is_paid_first_by_a_grant(buckets: Verbs) -> None:
    a_client(buckets, 10)
    buckets.settle(a_settlement(a_run(), 100))
    assert buckets.grant("acme", 2, 60) is GrantOutcome.GRANTED
    assert balance_of(buckets).owed == 30
    assert buckets.grant("acme", 3, 50) is GrantOutcome.GRANTED
    balance = balance_of(buckets)
    assert (balance.owed, balance.available, balance.debt) == (0, 20, 90)
    assert [grant.repaid for grant in balance.grants] == [0, 60, 30]
    assert buckets.reserve(a_hold(a_run(task_id="t2"), 20)).outcome is ReserveOutcome.HELD


def test_debt_is_paid_first_by_what_a_release_or_a_smaller_settle_returns(buckets: Verbs) -> None:
    a_client(buckets, 100)
    released, settled = a_run(task_id="released"), a_run(task_id="settled")
    buckets.reserve(a_hold(released, 40))
    buckets.reserve(a_hold(settled, 60))
    buckets.settle(a_settlement(a_run(task_id="late"), 70))
    assert balance_of(buckets).owed == 70
    buckets.release("acme", released, "first")
    assert balance_of(buckets).owed == 30
    buckets.settle(a_settlement(settled, 10))
    balance = balance_of(buckets)
    assert (balance.owed, balance.available, balance.held) == (0, 20, 0)
    assert balance.grants == (GrantBalance(grant_id=1, granted=100, available=20, spent=10, repaid=70),)


@pytest.mark.raw("looks at a key's time to live")
def test_l9_a_settled_id_is_forgotten_after_its_retention(server: Server, buckets: Verbs) -> None:
    a_client(buckets, 100)
    brief = server.buckets(settled_retention_seconds=0.05)
    run = a_run()
    brief.settle(a_settlement(run, 10))
    client = server.client()
    key = f"{{billing:{SHARD}}}:run:{run.hex}"
    assert client.pttl(key) <= 50
    until(lambda: not client.exists(key), "the settled id is gone")
    assert balance_of(buckets).spent == 10


def test_exact_to_the_unit_at_the_largest_amounts(buckets: Verbs) -> None:
    a_client(buckets, CREDITS_MAX - 3, 2)
    run = a_run()
    assert buckets.reserve(a_hold(run, CREDITS_MAX - 2)).outcome is ReserveOutcome.HELD
    assert balance_of(buckets).available == 1
    reply = buckets.settle(a_settlement(run, CREDITS_MAX - 4, 1))
    assert [line["grants"] for line in event_of(reply)["lines"]] == [
        [{"grant": 1, "credits": CREDITS_MAX - 4}],
        [{"grant": 1, "credits": 1}],
    ]
    assert balance_of(buckets).available == 2


def test_a_debt_that_would_lift_a_sum_above_the_bound_changes_nothing(buckets: Verbs) -> None:
    a_client(buckets, 10)
    buckets.settle(a_settlement(a_run(task_id="owing"), 11))
    before = balance_of(buckets)
    reply = buckets.settle(a_settlement(a_run(), CREDITS_MAX - 10))
    assert reply.outcome is SettleOutcome.TOO_LARGE
    assert balance_of(buckets) == before
    assert buckets.outbox_depth(SHARD) == 1
    assert buckets.settle(a_settlement(a_run(), CREDITS_MAX - 11)).debt == CREDITS_MAX - 11
    assert balance_of(buckets).spent == CREDITS_MAX


def test_lines_whose_sum_passes_the_bound_are_refused_by_name_value_and_rule(buckets: Verbs) -> None:
    rule = f"^credits: {CREDITS_MAX + 1}: must be at most {CREDITS_MAX} over all lines$"
    with pytest.raises(InvalidValue, match=rule):
        buckets.settle(a_settlement(a_run(), CREDITS_MAX, 1))


def test_an_unknown_client_and_another_clients_run_are_refused(buckets: Verbs) -> None:
    assert buckets.settle(a_settlement(a_run(), 1)).outcome is SettleOutcome.UNKNOWN_CLIENT
    other = next(name for name in map(str, range(100)) if shard_of(name, SHARDS) == SHARD)
    a_client(buckets, 100)
    a_client(buckets, 100, client_id=other)
    run = a_run()
    buckets.reserve(a_hold(run, 10))
    with pytest.raises(Conflict, match="another client"):
        buckets.settle(a_settlement(run, 10, client_id=other))
    assert balance_of(buckets).held == 10


@pytest.mark.parametrize("amounts", [(), (-1,), (CREDITS_MAX, 1), (1.5,)])
def test_amounts_out_of_bounds_are_refused(buckets: Verbs, amounts: tuple[int, ...]) -> None:
    with pytest.raises(InvalidValue):
        buckets.settle(a_settlement(a_run(), *[0 for _ in amounts]).__class__(**_fields(amounts)))


def _fields(amounts: tuple[int, ...]) -> dict[str, Any]:
    settlement = a_settlement(a_run(), *[0 for _ in amounts])
    return {name: getattr(settlement, name) for name in settlement.__struct_fields__} | {"amounts": amounts}
