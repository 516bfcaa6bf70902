"""A bucket that billing did not write is its client's trouble alone (L10)."""

from __future__ import annotations

import pytest

from billing.core.errors import Corrupt
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.granting import AdjustOutcome, TermsOutcome, VoidOutcome
from billing.credits.posting import Posting, PostOutcome
from billing.credits.terms import ClientTerms
from billing.credits.values import (
    ExpireOutcome,
    GrantOutcome,
    ReleaseOutcome,
    ReserveOutcome,
    SettleOutcome,
)
from tests.contract.making import a_client, a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS, Server

pytestmark = pytest.mark.raw("buckets that billing did not write")

SHARD = shard_of("acme", SHARDS)
OTHER = next(name for name in map(str, range(1_000)) if shard_of(name, SHARDS) == SHARD)


@pytest.mark.parametrize(
    "text", [b"", b"nonsense", b"1", b"1 0 garbage", b"1 0~x 1:5:0:0", b"1 0 1:5:0 !20:20,/", b"\xff\xfe"]
)
def test_l10_a_corrupt_bucket_is_its_clients_trouble_alone(buckets: Buckets, server: Server, text: bytes) -> None:
    a_client(buckets, 100)
    a_client(buckets, 100, client_id=OTHER)
    run, other = a_run(), a_run(OTHER)
    buckets.reserve(a_hold(run, 10))
    buckets.reserve(a_hold(other, 10, client_id=OTHER))
    name = f"{{billing:{SHARD}}}:bucket:acme"
    server.client().set(name, text)
    assert buckets.reserve(a_hold(a_run(task_id="new"), 1)).outcome is ReserveOutcome.CORRUPT
    assert buckets.settle(a_settlement(run, 15)).outcome is SettleOutcome.CORRUPT
    assert buckets.release("acme", run, "first") is ReleaseOutcome.CORRUPT
    assert buckets.grant("acme", 2, 5) is GrantOutcome.CORRUPT
    assert buckets.void("acme", 1) is VoidOutcome.CORRUPT
    assert buckets.adjust("acme", 1, 5).outcome is AdjustOutcome.CORRUPT
    assert buckets.set_terms("acme", ClientTerms(overdraft_limit=1)) is TermsOutcome.CORRUPT
    assert buckets.post("acme", 1, [Posting(grant_id=1, version=1, credits=1)]) is PostOutcome.CORRUPT
    with pytest.raises(Corrupt):
        buckets.balance("acme")
    readings = buckets.audit(["acme", OTHER])
    assert readings["acme"].unreadable
    assert readings["acme"].unreadable_key == name
    assert readings[OTHER].balance is not None
    assert server.client().get(name) == text, "nothing was changed"
    assert buckets.settle(a_settlement(other, 10, client_id=OTHER)).outcome is SettleOutcome.SETTLED
    assert buckets.epochs(["acme", OTHER])[OTHER] == 1


@pytest.mark.parametrize(("text", "lent"), [(b"1 0 1:90:9:0", "1:10"), (b"1 0~5,9,a 1:100:0:0", "0:10")])
def test_l2_a_hold_gives_back_nothing_that_the_bucket_never_lent(
    buckets: Buckets, server: Server, text: bytes, lent: str
) -> None:
    """Given a hold that says one credit more than its grant, or the overdraft, lent, then no account falls below 0."""
    a_client(buckets, 100)
    buckets.reserve(a_hold(run := a_run(), 10))
    tag, client = f"{{billing:{SHARD}}}:", server.client()
    held = client.get(f"{tag}run:{run.hex}")
    assert isinstance(held, bytes)
    client.set(f"{tag}run:{run.hex}", held.replace(b"1:10\n", lent.encode() + b"\n", 1))
    client.set(f"{tag}bucket:acme", text)
    assert buckets.release("acme", run, "first") is ReleaseOutcome.CORRUPT
    assert buckets.settle(a_settlement(run, 10)).outcome is SettleOutcome.CORRUPT
    assert client.get(f"{tag}bucket:acme") == text, "nothing was changed"


def test_l10_a_bucket_of_another_type_is_no_error_either(buckets: Buckets, server: Server) -> None:
    a_client(buckets, 100)
    run = a_run()
    buckets.reserve(a_hold(run, 10))
    name = f"{{billing:{SHARD}}}:bucket:acme"
    server.client().delete(name)
    server.client().rpush(name, "x")
    assert buckets.reserve(a_hold(a_run(task_id="new"), 1)).outcome is ReserveOutcome.UNKNOWN_CLIENT
    assert buckets.settle(a_settlement(run, 15)).outcome is SettleOutcome.UNKNOWN_CLIENT
    assert buckets.release("acme", run, "first") is ReleaseOutcome.CORRUPT
    assert buckets.grant("acme", 2, 5) is GrantOutcome.CORRUPT
    assert buckets.expire("acme", run) in {ExpireOutcome.CORRUPT, ExpireOutcome.NOT_DUE}
    assert buckets.epochs(["acme"]) == {"acme": 0}
    with pytest.raises(Corrupt):
        buckets.balance("acme")


@pytest.mark.parametrize("fields", [None, {"g": "x"}, {"g": "x", "g:1": "y"}, {"g": "100", "g:1": b"\xff"}])
def test_l10_a_corrupt_hash_is_its_clients_trouble_alone(
    buckets: Buckets, server: Server, fields: dict[str, str | bytes] | None
) -> None:
    """Given grants of another type, or fields that are no numbers, then whoever needs them is told, and it is named."""
    a_client(buckets, 100)
    a_client(buckets, 100, client_id=OTHER)
    other = a_run(OTHER)
    buckets.reserve(a_hold(other, 10, client_id=OTHER))
    name = f"{{billing:{SHARD}}}:grants:acme"
    if fields is None:
        server.client().delete(name)
        server.client().rpush(name, "x")
    else:
        server.client().hset(name, mapping=fields)  # type: ignore[arg-type]
    with pytest.raises(Corrupt):
        buckets.balance("acme")
    if fields is None or fields["g"] == "x":  # what no verb computes with keeps no verb from going on
        assert buckets.grant("acme", 2, 5) is GrantOutcome.CORRUPT
        assert buckets.adjust("acme", 1, 5).outcome is AdjustOutcome.CORRUPT
        assert buckets.settle(a_settlement(a_run(), 150)).outcome is SettleOutcome.CORRUPT
    reading = buckets.audit(["acme", OTHER])["acme"]
    assert (reading.unreadable_key, bool(reading.unreadable)) == (name, True)
    assert buckets.settle(a_settlement(other, 10, client_id=OTHER)).outcome is SettleOutcome.SETTLED
