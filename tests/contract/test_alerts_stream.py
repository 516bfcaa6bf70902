"""The stream of alerts: what a rebuild, a recovering shard and foreign bytes do to it, and its bound (L9, L10)."""

from __future__ import annotations

from typing import Any

import pytest

from billing.credits.rebuilding import plan_bucket
from billing.credits.values import RebuildOutcome, ReserveOutcome
from billing.credits.verbs import Verbs
from tests.contract.alerting import SHARD, raised, reserve, spend
from tests.contract.making import a_client
from tests.contract.servers import Server


def test_a_rebuild_forgets_what_was_alerted_and_costs_one_more_alert_at_most(buckets: Verbs) -> None:
    a_client(buckets, 100)
    spend(buckets, 97)
    assert raised(buckets) == [(5, 3)]
    buckets.close(SHARD)
    plan = plan_bucket(grants=[(1, 100)], spent={1: 97}, holds=[])
    server = buckets.server_of(SHARD)[1]
    assert buckets.rebuild("acme", 2, plan, server=server, asserts=0) is RebuildOutcome.REBUILT
    assert buckets.verify(SHARD, expected=server)
    spend(buckets, 1, 1)
    assert raised(buckets) == [(5, 3), (5, 2)]


def test_while_a_shard_recovers_nothing_is_alerted(buckets: Verbs) -> None:
    a_client(buckets, 10)
    buckets.close(SHARD)
    assert reserve(buckets, 100) is ReserveOutcome.RECOVERING
    assert raised(buckets) == []


@pytest.mark.raw("a bucket as an older release wrote it")
def test_a_bucket_whose_marks_an_older_script_dropped_still_tells_its_end_once(server: Server, buckets: Verbs) -> None:
    """Given a grant by a worker of the release before, then only the end is alerted until the next grant."""
    server.client().set(f"{{billing:{SHARD}}}:bucket:acme", "1 0 1:100:0:0")
    server.client().hset(f"{{billing:{SHARD}}}:grants:acme", "g:1", 100)
    spend(buckets, 95)
    assert reserve(buckets, 50, "a") is reserve(buckets, 50, "b") is ReserveOutcome.INSUFFICIENT
    assert raised(buckets) == [(0, 5)]
    buckets.grant("acme", 2, 100)
    spend(buckets, 100)
    assert [percent for percent, _ in raised(buckets)] == [0, 5]


def test_what_was_read_is_removed_exactly(buckets: Verbs) -> None:
    """Given alerts of two clients, when those that were read are forgotten, then a later one stays."""
    for client_id in ("acme", "globex"):
        buckets.open_client(client_id)
        reserve(buckets, 1, client_id=client_id)
    read = buckets.alerts(count=10)
    buckets.grant("acme", 1, 10)
    reserve(buckets, 100, "later")
    assert len(read) == 2
    buckets.forget_alerts(read)
    assert raised(buckets) == [(0, 10)]


@pytest.mark.raw("entries that billing did not write")
def test_l10_an_entry_that_cannot_be_read_delays_no_other(server: Server, buckets: Verbs) -> None:
    client = server.client()
    key = f"{{billing:{SHARD}}}:alerts"
    client.xadd(key, {"filler": 1})
    client.xadd(key, {"client": "globex", "percent": "much", "available": 1, "granted": 1, "at": 1, "server": "s"})
    buckets.open_client("acme")
    reserve(buckets, 1)
    assert [entry.client_id for entry in buckets.alerts(count=1)] == []
    assert [entry.client_id for entry in buckets.alerts(count=10)] == ["acme"]
    assert client.xlen(key) == 1


@pytest.mark.raw("a stream that is filled by hand")
def test_l9_the_stream_is_bounded_while_nobody_reads_it(server: Server, buckets: Verbs) -> None:
    client: Any = server.client()
    key = f"{{billing:{SHARD}}}:alerts"
    fill = "for _ = 1, 12000 do redis.call('XADD', KEYS[1], '*', 'filler', 1) end"
    client.execute_command("EVAL", fill, 1, key)
    buckets.open_client("acme")
    reserve(buckets, 1)
    assert client.xlen(key) <= 10_100
    assert client.xrevrange(key, count=1)[0][1][b"client"] == b"acme"
