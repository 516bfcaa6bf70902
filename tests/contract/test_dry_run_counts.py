"""What dry runs count is added once per addition, within a bound, and touches no bucket (L9)."""

from __future__ import annotations

import pytest

from billing.credits import dry_runs
from billing.credits.twin import counting
from billing.credits.verbs import Verbs
from tests.contract.making import a_client


def test_an_addition_counts_once_however_often_it_is_sent(buckets: Verbs) -> None:
    assert buckets.counts() == {}
    for _ in range(3):
        buckets.count("first", {"admitted:a:b": 2, "credits:a:b": 2**40})
    buckets.count("second", {"admitted:a:b": 1, "insufficient:c": 1, "credits:a:b": 0})
    assert buckets.counts() == {"admitted:a:b": 3, "credits:a:b": 2**40, "insufficient:c": 1}
    buckets.forget_counts()
    assert buckets.counts() == {}
    buckets.count("third", {"admitted:c": 1})
    assert buckets.counts() == {"admitted:c": 1}


def test_l9_past_the_bound_only_what_is_known_is_counted(buckets: Verbs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dry_runs, "FIELDS_MAX", 3)
    monkeypatch.setattr(counting, "FIELDS_MAX", 3)
    buckets.count("first", {"admitted:a": 1, "admitted:b": 1})
    buckets.count("second", {"admitted:c": 1, "admitted:d": 1, "admitted:a": 1})
    assert buckets.counts() == {"admitted:a": 2, "admitted:b": 1, "admitted:c": 1}


def test_l6_counts_need_no_verified_server_and_change_no_bucket(buckets: Verbs) -> None:
    """Given shards that are not trusted, then a dry run is counted all the same."""
    a_client(buckets, 100)
    before = buckets.balance("acme")
    for shard in range(buckets.shards):
        buckets.close(shard)
    buckets.count("first", {"recovering:a": 1})
    assert buckets.counts() == {"recovering:a": 1}
    for shard in range(buckets.shards):
        assert buckets.verify(shard, expected=None)
    assert buckets.balance("acme") == before
