"""What waits for its bucket is applied row by row: what fails keeps nobody else waiting (L10)."""

from __future__ import annotations

import dataclasses

import pytest
from sqlalchemy.exc import IntegrityError

from billing.core.errors import Refusing, Unreachable
from billing.core.shards import shard_of
from billing.recovery import each
from billing.recovery.each import AWAY_MAX, apply_each

SHARDS = 64
#: A client of each shard.
CLIENTS = [next(n for n in map(str, range(10_000)) if shard_of(n, SHARDS) == shard) for shard in range(SHARDS)]


@dataclasses.dataclass(frozen=True)
class Waiting:
    """A row of the ledger that its bucket has not seen."""

    client_id: str
    number: int = 0


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """Forget who was silent in other tests."""
    each._SILENT.clear()


class Buckets:
    """Buckets of which some cannot be reached, and some that the ledger refuses."""

    def __init__(self, *away: str, refused: str = "", refusing: bool = False) -> None:
        self.away, self.refused, self.refusing = away, refused, refusing
        self.asked: list[Waiting] = []

    def apply(self, row: Waiting) -> bool:
        """Take a row."""
        self.asked.append(row)
        if row.client_id in self.away:
            raise (Refusing if self.refusing else Unreachable)("billing_redis_url: does not answer")
        if row.client_id == self.refused:
            raise IntegrityError("INSERT", {}, ValueError("no such grant"))
        return row.number != 99


def test_given_a_shard_that_does_not_answer_then_it_is_asked_once_and_the_others_get_theirs() -> None:
    buckets = Buckets("acme")
    rows = [Waiting("acme"), Waiting("acme", 1), Waiting("bolt", 2), Waiting("core", 99)]
    assert len({shard_of(row.client_id, SHARDS) for row in rows}) == 3
    assert apply_each(rows, buckets.apply, shards=SHARDS) == 1
    assert buckets.asked == [rows[0], rows[2], rows[3]]


def test_given_a_row_that_the_ledger_refuses_then_later_ones_of_its_client_wait_and_others_do_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    buckets = Buckets(refused="acme")
    rows = [Waiting("acme"), Waiting("bolt", 1), Waiting("acme", 2)]
    assert apply_each(rows, buckets.apply, shards=SHARDS) == 1
    assert buckets.asked == rows[:2]
    assert "Waiting(client_id='acme', number=0) is not applied" in caplog.text


def test_given_no_server_that_answers_then_that_is_raised() -> None:
    with pytest.raises(Unreachable):
        apply_each([Waiting("acme")], Buckets("acme").apply, shards=SHARDS)
    assert apply_each([], Buckets().apply, shards=SHARDS) == 0


def test_given_a_dead_node_with_the_oldest_rows_then_the_others_get_theirs_within_a_few_passes() -> None:
    """L9, L10: a pass waits for a few shards at most, and the next one begins with those that nobody waited for."""
    rows = [Waiting(CLIENTS[shard]) for shard in range(12)]
    dead = Buckets(*(CLIENTS[shard] for shard in range(10)))
    for _ in range(2):
        with pytest.raises(Unreachable):
            apply_each(rows, dead.apply, shards=SHARDS)
    dead.asked.clear()
    assert apply_each(rows, dead.apply, shards=SHARDS) == 2
    assert len(dead.asked) == 2 + AWAY_MAX
    assert apply_each(rows, Buckets().apply, shards=SHARDS) == 12, "and all, when it is back"


def test_given_servers_that_refuse_at_once_then_no_pass_ends_for_them() -> None:
    rows = [Waiting(CLIENTS[shard]) for shard in range(12)]
    refusing = Buckets(*(CLIENTS[shard] for shard in range(10)), refusing=True)
    assert apply_each(rows, refusing.apply, shards=SHARDS) == 2
