"""The trail of a shard: its newest notes, within a bound, on trusted shards and others; no bucket is touched (L9)."""

from __future__ import annotations

from billing.credits.trail import NOTES_MAX
from billing.credits.verbs import Verbs
from tests.contract.making import a_client


def test_notes_come_back_in_their_order_from_their_own_shard(buckets: Verbs) -> None:
    a_client(buckets, 100)
    before = buckets.balance("acme")
    assert buckets.add_notes([(0, b"one"), (1, b"\x00\xff"), (0, b"two")]) == []
    assert buckets.add_notes([]) == []
    assert buckets.notes(0) == [b"one", b"two"]
    assert buckets.notes(1) == [b"\x00\xff"]
    assert buckets.balance("acme") == before


def test_l9_a_trail_keeps_its_newest_notes(buckets: Verbs) -> None:
    written = [b"%d" % number + b"." * 200 for number in range(NOTES_MAX + 500)]
    buckets.add_notes([(0, note) for note in written])
    kept = buckets.notes(0)
    assert kept == written[-len(kept) :]
    # A stream is trimmed by the node.
    assert NOTES_MAX <= len(kept) <= NOTES_MAX + 100


def test_l6_notes_need_no_verified_server(buckets: Verbs) -> None:
    for shard in range(buckets.shards):
        buckets.close(shard)
    assert buckets.add_notes([(0, b"recovering")]) == []
    assert buckets.notes(0) == [b"recovering"]
