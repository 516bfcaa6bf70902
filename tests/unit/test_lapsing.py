"""Ended grants of a shard that does not answer keep no other shard's from their end (L10). Nothing is connected."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

from billing.core import rounds
from billing.core.clock import SystemClock
from billing.core.errors import Unreachable
from billing.core.rounds import Rounds
from billing.core.settings import Settings
from billing.recovery import lapsing

SHARDS = 6


class Buckets:
    """Two shards a node. One question to all fails with any of them."""

    def __init__(self, *silent: str) -> None:
        self.silent = silent
        self.asked: list[int] = []

    def node_of(self, shard: int) -> str:
        """Return the node of a shard."""
        return f"n{shard // 2}"

    def endings_due(self) -> NoReturn:
        """Fail."""
        raise Unreachable("billing_redis_url: does not answer")

    def lapse(self, _: Any, shard: int) -> int:
        """End one grant."""
        self.asked.append(shard)
        if self.node_of(shard) in self.silent:
            raise Unreachable("billing_redis_url: does not answer")
        return 1


def runtime_of(buckets: Buckets, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return a runtime of these buckets, whose ledger is left out."""
    monkeypatch.setattr(lapsing, "_lapse_shard", buckets.lapse)
    return SimpleNamespace(buckets=buckets, clock=SystemClock(), settings=Settings(shards=SHARDS))


def test_l10_a_node_that_does_not_answer_is_waited_for_once_and_the_others_grants_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    buckets = Buckets("n0")
    assert lapsing.lapse_grants(runtime_of(buckets, monkeypatch)) == 4
    assert buckets.asked == [0, 2, 3, 4, 5]


def test_l10_nodes_that_stay_silent_do_not_end_each_sweep_before_the_others_turn(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given as many silent nodes as end a round, then the next sweep begins with those that may answer."""
    monkeypatch.setattr(rounds, "SILENT_MAX", 2)
    buckets = Buckets("n0", "n1")
    runtime = runtime_of(buckets, monkeypatch)
    remembered = Rounds(buckets.node_of, runtime.clock)
    with pytest.raises(Unreachable):
        lapsing.lapse_grants(runtime, remembered)
    assert lapsing.lapse_grants(runtime, remembered) == 2
    assert buckets.asked[:4] == [0, 2, 4, 5]


def test_where_nobody_answers_that_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    buckets = Buckets("n0", "n1", "n2")
    with pytest.raises(Unreachable):
        lapsing.lapse_grants(runtime_of(buckets, monkeypatch))
    assert buckets.asked == [0, 2, 4]
