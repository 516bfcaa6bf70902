"""What waits for its bucket is applied row by row: what fails keeps nobody else waiting (L10)."""

from __future__ import annotations

import dataclasses

import pytest
from sqlalchemy.exc import IntegrityError

from billing.core.errors import Unreachable
from billing.core.shards import shard_of
from billing.recovery.each import apply_each

SHARDS = 64


@dataclasses.dataclass(frozen=True)
class Waiting:
    """A row of the ledger that its bucket has not seen."""

    client_id: str
    number: int = 0


class Buckets:
    """Buckets of which some cannot be reached, and some that the ledger refuses."""

    def __init__(self, away: str = "", refused: str = "") -> None:
        self.away, self.refused = away, refused
        self.asked: list[Waiting] = []

    def apply(self, row: Waiting) -> bool:
        """Take a row."""
        self.asked.append(row)
        if row.client_id == self.away:
            raise Unreachable("billing_redis_url: does not answer")
        if row.client_id == self.refused:
            raise IntegrityError("INSERT", {}, ValueError("no such grant"))
        return row.number != 99


def test_given_a_shard_that_does_not_answer_then_it_is_asked_once_and_the_others_get_theirs() -> None:
    buckets = Buckets(away="acme")
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
        apply_each([Waiting("acme")], Buckets(away="acme").apply, shards=SHARDS)
    assert apply_each([], Buckets().apply, shards=SHARDS) == 0
