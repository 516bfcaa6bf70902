"""Who is visited when a node does not answer: the others first and always, that one seldom and once (L9, L10)."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import pytest

from billing.core.errors import Recovering, Refusing, Unreachable
from billing.core.rounds import SILENT_MAX, Rounds

SHARDS = range(12)
NODES = 3
WAIT_SECONDS = 3.0


class Fleet:
    """Shards on three nodes, by turns. A silent node takes a while to be given up."""

    def __init__(self) -> None:
        self.now = 0.0
        self.silent: set[str] = set()
        self.refusing: set[int] = set()
        self.moved: dict[int, str] = {}
        self.asked: list[int] = []
        clock: Any = SimpleNamespace(monotonic=lambda: self.now)
        self.rounds = Rounds(self.node_of, clock)

    def node_of(self, shard: int) -> str:
        """Return the node of a shard."""
        return self.moved.get(shard, f"node {shard % NODES}")

    def work(self, shard: int) -> int:
        """Do one."""
        self.asked.append(shard)
        if self.node_of(shard) in self.silent:
            self.now += WAIT_SECONDS
            message = f"shard {shard}: no answer"
            raise Unreachable(message)
        if shard in self.refusing:
            message = f"shard {shard}: refused"
            raise Refusing(message)
        return 1

    def round(self) -> list[int]:
        """Visit all; return who was asked."""
        self.asked.clear()
        assert self.rounds.visit(SHARDS, self.work) == len(
            [shard for shard in self.asked if self.node_of(shard) not in self.silent and shard not in self.refusing]
        )
        return [*self.asked]


@pytest.fixture
def fleet() -> Fleet:
    """Return a fleet in which everybody answers."""
    return Fleet()


def test_where_all_answer_all_are_visited_in_the_order_given(fleet: Fleet) -> None:
    assert fleet.round() == [*SHARDS]
    assert fleet.round() == [*SHARDS]


def test_l9_a_silent_node_costs_one_wait_and_is_asked_after_pauses_that_grow_to_a_bound(fleet: Fleet) -> None:
    """Given a node that hangs for minutes, with a round each second, then it is asked at 0, 2, 6, 14 and each 30 s."""
    fleet.silent = {"node 0"}
    others = [shard for shard in SHARDS if shard % NODES]
    assert fleet.round() == [0, *others]
    tries: list[float] = []
    while fleet.now < 200:
        fleet.now += 1
        before = fleet.now
        asked = fleet.round()
        assert asked[: len(others)] == others, "the others are visited each time, and first"
        if asked != others:
            assert len(asked) == len(others) + 1
            tries.append(before)
    pauses = [int(later - before - WAIT_SECONDS) for before, later in itertools.pairwise(tries)]
    assert pauses == [2, 6, 14, *[30] * (len(pauses) - 3)]
    assert len(pauses) > 4


def test_l10_a_node_that_answers_again_has_all_its_shards_visited_at_once(fleet: Fleet) -> None:
    fleet.silent = {"node 1"}
    fleet.round()
    fleet.silent.clear()
    assert sorted(fleet.round()) == [*SHARDS]
    fleet.round()
    fleet.silent = {"node 1"}
    assert len([shard for shard in fleet.round() if shard % NODES == 1]) == 1, "its first failure again"
    fleet.silent.clear()
    assert sorted(fleet.round()) == [*SHARDS], "and so no pause"


def test_l10_a_shard_that_another_node_takes_over_is_visited_at_once(fleet: Fleet) -> None:
    fleet.silent = {"node 1"}
    for _ in range(3):
        fleet.round()
    fleet.moved = dict.fromkeys([1, 4, 7, 10], "node 9")
    assert sorted(fleet.round()) == [*SHARDS]


def test_l10_two_silent_nodes_are_asked_by_turns_one_a_round(fleet: Fleet) -> None:
    fleet.silent = {"node 0", "node 1"}
    fleet.round()
    last = [fleet.round()[4:] for _ in range(2)]
    assert [[fleet.node_of(shard) for shard in asked] for asked in last] == [["node 0"], ["node 1"]]


def test_l10_one_shard_at_which_a_node_falls_silent_hides_no_other_of_that_node(fleet: Fleet) -> None:
    """Given a node that answers for all shards but one, then that one is visited last, and no other is left out."""
    fleet.moved = dict.fromkeys(SHARDS, "node 0") | {3: "node 0, hanging"}
    fleet.rounds = Rounds(lambda _: "node 0", SimpleNamespace(monotonic=lambda: fleet.now))
    fleet.silent = {"node 0, hanging"}
    assert fleet.round() == [0, 1, 2, 3]
    for _ in range(3):
        assert fleet.round() == [0, 1, 2, *range(4, 12), 3]


def test_l10_who_refuses_at_once_is_left_out_alone(fleet: Fleet) -> None:
    fleet.refusing = {0, 1}
    assert fleet.round() == [*SHARDS]
    assert fleet.round() == [*range(2, 12), 0, 1]


def test_l9_where_nobody_answers_a_few_are_asked_and_the_first_reason_is_raised(fleet: Fleet) -> None:
    """Given more silent nodes than a round may wait for, then each round asks others, and all in the end."""
    fleet.moved = {shard: f"node of {shard}" for shard in SHARDS}
    fleet.silent = set(fleet.moved.values())
    for turn in range(2 * len(SHARDS) // SILENT_MAX):
        first = turn * SILENT_MAX % len(SHARDS)
        fleet.asked.clear()
        with pytest.raises(Unreachable, match=f"shard {first}: "):
            fleet.rounds.visit(SHARDS, fleet.work)
        assert fleet.asked == [*range(first, first + SILENT_MAX)]


def test_what_is_no_silence_ends_the_round(fleet: Fleet) -> None:
    def surprised(shard: int) -> int:
        fleet.asked.append(shard)
        raise Recovering(str(shard))

    with pytest.raises(Recovering):
        fleet.rounds.visit(SHARDS, surprised)
    assert fleet.asked == [0]


def test_a_shard_that_asked_nobody_says_nothing_of_its_node(fleet: Fleet) -> None:
    """Given a silent node, when the work at its shards asks nobody, then the node still counts as silent."""
    fleet.silent = {"node 0"}
    fleet.round()
    fleet.round()
    silent = dict(fleet.rounds._silent)
    assert silent
    fleet.now += 60
    assert fleet.rounds.visit(SHARDS, lambda _: None) == 0
    assert fleet.rounds._silent == silent
