"""A call whose answer was lost is sent again by the client, and changes nothing the second time (L1, L2, L3)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from billing.core.errors import Unreachable
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.values import (
    Balance,
    ExpireOutcome,
    GrantOutcome,
    OpenOutcome,
    ReleaseOutcome,
    RenewOutcome,
    ReserveOutcome,
    SettleOutcome,
)
from tests.contract.forgetful import Forgetful, forgetful
from tests.contract.laws import assert_laws
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.passing import Sweeping
from tests.contract.servers import SHARDS, Server

#: A door in front of one server.
ON_CLUSTER = False
pytestmark = pytest.mark.raw("loses a connection's answers")
SHARD = shard_of("acme", SHARDS)


@contextmanager
def through(server: Server) -> Iterator[tuple[Forgetful, Buckets]]:
    """Yield buckets behind a door that loses answers; the client sends a lost call once more."""
    with forgetful(server.port) as door:
        client = server.client(port=door.port)
        client.ping()
        yield door, server.buckets(client=client)
        client.close()


def balance_of(buckets: Buckets) -> Balance:
    """Read a balance and hold it to the laws."""
    balance = buckets.balance("acme")
    assert balance is not None
    assert_laws(balance)
    return balance


def test_l1_a_reserve_with_a_lost_answer_holds_once(server: Server, buckets: Buckets) -> None:
    a_client(buckets, 100)
    with through(server) as (door, lossy):
        door.lose()
        reply = lossy.reserve(a_hold(a_run(), 60))
        assert door.lost == 1
    assert (reply.outcome, reply.held) == (ReserveOutcome.TAKEN_OVER, 60)
    assert balance_of(buckets).held == 60


def test_l1_a_reserve_that_carries_removals_with_a_lost_answer_holds_once(server: Server, buckets: Buckets) -> None:
    a_client(buckets, 100)
    entry_id = buckets.settle(a_settlement(a_run(task_id="before"), 1)).entry_id
    assert entry_id is not None
    with through(server) as (door, lossy):
        door.lose()
        reply = lossy.reserve(a_hold(a_run(), 60), forget=[(SHARD, entry_id)])
        assert door.lost == 1
    assert (reply.outcome, reply.held) == (ReserveOutcome.TAKEN_OVER, 60)
    assert buckets.outbox_depth(SHARD) == 0


def test_l3_a_settle_with_a_lost_answer_charges_once_and_still_says_what_to_publish(
    server: Server, buckets: Buckets
) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 60))
    with through(server) as (door, lossy):
        door.lose()
        reply = lossy.settle(a_settlement(run, 50))
        assert door.lost == 1
    (entry,) = buckets.outbox(SHARD, older_than_ms=0, count=10)
    assert (reply.outcome, reply.event, reply.entry_id) == (SettleOutcome.ALREADY, entry.event, entry.entry_id)
    assert (balance_of(buckets).spent, balance_of(buckets).available) == (50, 50)


def _granted(buckets: Buckets) -> None:
    assert buckets.grant("acme", 2, 7) is GrantOutcome.ALREADY


def _opened(buckets: Buckets) -> None:
    assert buckets.open_client("acme") is OpenOutcome.ALREADY


def _released(buckets: Buckets) -> None:
    assert buckets.release("acme", a_run(at_milliseconds=None), "first") is ReleaseOutcome.NOTHING


def _renewed(buckets: Buckets) -> None:
    assert buckets.renew([("acme", a_run(at_milliseconds=None), None)]) == [RenewOutcome.RENEWED]


def _staged(buckets: Buckets) -> None:
    assert buckets.stage("acme", a_run(at_milliseconds=None), "first", b"[]")


@pytest.mark.parametrize("call", [_granted, _opened, _released, _renewed, _staged])
def test_l2_every_other_verb_with_a_lost_answer_changes_nothing_more(
    server: Server, buckets: Buckets, call: Callable[[Buckets], None]
) -> None:
    a_client(buckets, 100)
    buckets.reserve(a_hold(a_run(at_milliseconds=None), 60))
    with through(server) as (door, lossy):
        door.lose()
        call(lossy)
        assert door.lost == 1
    once = balance_of(buckets)
    if call is not _released:
        call(buckets)
    assert balance_of(buckets) == once


def test_l5_an_expire_with_a_lost_answer_gives_back_once(server: Server, buckets: Buckets) -> None:
    a_client(buckets, 100)
    run = a_run()
    sweeping = Sweeping(server.client(), buckets, SHARD)
    with through(server) as (door, lossy):
        lossy.reserve(a_hold(run, 60))
        sweeping.until(lambda found: bool(found.held), "the hold is overdue")
        door.lose()
        assert lossy.expire("acme", run) is ExpireOutcome.NOTHING
        assert door.lost == 1
    assert (balance_of(buckets).available, balance_of(buckets).held) == (100, 0)


def test_a_server_that_is_gone_is_unreachable(own_server: Server) -> None:
    buckets = own_server.buckets()
    own_server.end()
    with pytest.raises(Unreachable, match="does not answer"):
        buckets.reserve(a_hold(a_run(), 1))
    with pytest.raises(Unreachable, match="does not answer"):
        buckets.outbox(SHARD, older_than_ms=0, count=1)


def test_a_full_server_takes_no_new_work_and_still_settles_and_releases(own_server: Server) -> None:
    """Given a server whose memory is full, when work asks and finishes, then only what finishes is let through."""
    buckets = own_server.buckets()
    a_client(buckets, 100)
    settled, released = a_run(task_id="settled"), a_run(task_id="released")
    buckets.reserve(a_hold(settled, 10))
    buckets.reserve(a_hold(released, 10))
    own_server.client().config_set("maxmemory", "1mb")
    with pytest.raises(Unreachable, match="takes no writes"):
        buckets.reserve(a_hold(a_run(), 1))
    assert buckets.settle(a_settlement(settled, 10)).outcome is SettleOutcome.SETTLED
    assert buckets.release("acme", released, "first") is ReleaseOutcome.RELEASED
    assert (balance_of(buckets).spent, balance_of(buckets).available) == (10, 90)


def test_a_server_without_the_scripts_gets_them_in_the_middle_of_the_work(server: Server, buckets: Buckets) -> None:
    a_client(buckets, 100)
    run = a_run()
    server.client().function_flush()
    assert buckets.reserve(a_hold(run, 60)).outcome is ReserveOutcome.HELD
    server.client().function_flush()
    assert buckets.renew([("acme", run, None), ("acme", run, None)]) == [RenewOutcome.RENEWED] * 2
    server.client().function_flush()
    reply = buckets.reserve(a_hold(run, 60, token="second"), forget=[(SHARD, "1-1")])
    assert reply.outcome is ReserveOutcome.TAKEN_OVER
    assert balance_of(buckets).held == 60
