"""What a server has of one task is found by its text, on one shard or all, and within a bound (L9)."""

from __future__ import annotations

import pytest

from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.values import SettledRun, StoredHold
from billing.credits.verbs import Verbs
from tests.contract.making import a_client, a_hold, a_run, a_settlement

pytestmark = pytest.mark.raw("the twin keeps no records whose text could be looked through")

CLIENTS = ("acme", "globex", "initech")


@pytest.fixture
def traced(buckets: Verbs) -> Buckets:
    """Return buckets with two holds of each of three clients."""
    assert isinstance(buckets, Buckets)
    for client_id in CLIENTS:
        a_client(buckets, 100, client_id=client_id)
        for number in range(2):
            buckets.reserve(a_hold(a_run(client_id, f"task-{number}", at_milliseconds=1), 5, client_id=client_id))
    return buckets


def test_a_hold_is_found_by_its_text_wherever_it_is(traced: Buckets) -> None:
    run = a_run("globex", "task-1", at_milliseconds=1)
    everywhere = range(traced.shards)
    (hold,), unread = traced.holds_with(str(run).encode(), everywhere, 100)
    assert (hold.run_id, hold.client_id, hold.credits, unread) == (run, "globex", 5, 0)
    assert hold.deadline_ms > traced.time_ms()
    own = [shard_of("globex", traced.shards)]
    assert traced.holds_with(str(run).encode(), own, 100) == ([hold], 0)
    assert traced.holds_with(b"nobody's", everywhere, 100) == ([], 0)
    assert traced.holds_with(str(run).encode(), [], 100) == ([], 0)


def test_l9_past_the_bound_nothing_is_looked_at_and_it_says_how_much(traced: Buckets) -> None:
    found, unread = traced.holds_with(b"task", range(traced.shards), 4)
    assert unread == 2
    found, unread = traced.holds_with(b"run_id", range(traced.shards), 4)
    assert (len(found), unread) == (4, 2)
    for client_id in CLIENTS:
        run = a_run(client_id, "task-0", at_milliseconds=1)
        traced.settle(a_settlement(run, 5, client_id=client_id))
    events, unread = traced.events_with(b"run_id", range(traced.shards), 2)
    assert (len(events), unread) == (2, 1)
    events, unread = traced.events_with(str(run).encode(), range(traced.shards), 100)
    assert (len(events), unread) == (1, 0)


def test_a_run_is_remembered_while_it_is_held_and_once_it_is_settled(traced: Buckets) -> None:
    settled, held = (a_run("acme", f"task-{number}", at_milliseconds=1) for number in range(2))
    traced.settle(a_settlement(settled, 5, settlement_id="s1"))
    found = {one.run_id: one for one in traced.find_runs([settled, held, a_run()], range(traced.shards))}
    assert set(found) == {settled, held}
    assert isinstance(found[held], StoredHold)
    one = found[settled]
    assert isinstance(one, SettledRun)
    assert (one.settlement_id, one.client_id) == ("s1", "acme")
