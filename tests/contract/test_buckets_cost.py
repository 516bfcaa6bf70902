"""What the steps of a hold's life cost: one round trip each, and never all that a client ever had (L9).

How many commands each function issues is recorded in tests/cost.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS, Server

#: One server's own counts; cluster/test_cluster.py counts a cluster's.
ON_CLUSTER = False
pytestmark = pytest.mark.raw("counts a server's commands and round trips")
SHARD = shard_of("acme", SHARDS)


def commands_of(server: Server, work: Callable[[], object]) -> dict[str, int]:
    """Return how often each command ran while `work` did."""
    client = server.client()
    client.config_resetstat()
    work()
    statistics = client.info("commandstats")
    counts = {name.removeprefix("cmdstat_"): int(entry["calls"]) for name, entry in statistics.items()}
    return {name: calls for name, calls in counts.items() if not name.startswith(("config", "info", "client", "hello"))}


def round_trips_of(server: Server, work: Callable[[Buckets], object]) -> int:
    """Return how many times the server read from the connection that did `work`."""
    client = server.client()
    buckets = server.buckets(client=client)
    watcher = server.client()

    def reads() -> int:
        return int(watcher.info("stats")["total_reads_processed"])

    client.ping()
    first = reads()
    second = reads()
    work(buckets)
    return reads() - second - (second - first)


def test_grants_debt_and_adjustments_never_read_all_that_a_client_ever_had(server: Server, buckets: Buckets) -> None:
    """L9: the sum of a bucket is kept, however many adjustments it remembers."""
    a_client(buckets, 10)
    adjusted = commands_of(server, lambda: buckets.adjust("acme", 1, 100))
    # It begins a debt: the alert of it is the time and an entry of the stream.
    told = {"time": 1, "xadd": 1}
    assert adjusted == {"fcall": 1, "get": 2, "hmget": 1, "hget": 1, "hincrby": 2, "hset": 1, "set": 1} | told
    more = commands_of(server, lambda: buckets.adjust("acme", 2, 100))
    assert not told.keys() & more.keys()
    assert "hgetall" not in commands_of(server, lambda: buckets.grant("acme", 2, 5))
    assert "hgetall" not in commands_of(server, lambda: buckets.settle(a_settlement(a_run(), 7)))
    assert "hgetall" not in commands_of(server, lambda: buckets.void("acme", 2))


def test_the_removal_of_confirmed_events_rides_along_in_the_same_round_trip(server: Server, buckets: Buckets) -> None:
    a_client(buckets, 100)
    entries = [buckets.settle(a_settlement(a_run(task_id=str(number)), 1)).entry_id for number in range(3)]
    forget = [(SHARD, entry_id) for entry_id in entries if entry_id is not None]
    hold = a_hold(a_run(), 5)
    assert round_trips_of(server, lambda buckets: buckets.reserve(hold, forget=forget)) == 1
    assert buckets.outbox_depth(SHARD) == 0
    assert buckets.held("acme")[0].run_id == hold.run_id


def test_each_step_of_a_hold_s_life_is_one_round_trip(server: Server, buckets: Buckets) -> None:
    a_client(buckets, 100)
    run = a_run()
    steps: list[Callable[[Buckets], object]] = [
        lambda buckets: buckets.reserve(a_hold(run, 5)),
        lambda buckets: buckets.release("acme", run, "first"),
        lambda buckets: buckets.reserve(a_hold(run, 5)),
        lambda buckets: buckets.settle(a_settlement(run, 5)),
        lambda buckets: buckets.expire("acme", a_run(task_id="t2")),
    ]
    assert [round_trips_of(server, step) for step in steps] == [1] * len(steps)


def test_renewing_twenty_runs_is_one_round_trip(server: Server, buckets: Buckets) -> None:
    a_client(buckets, 100)
    items = [("acme", a_run(task_id=str(number)), None) for number in range(20)]
    assert round_trips_of(server, lambda buckets: buckets.renew(items)) == 1
