"""What `billing usage` and the dead letters show: every row once, newest first, page by page."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import sqlalchemy

from billing.core.errors import InvalidValue
from billing.fulfillment import dead_letters, reading
from billing.fulfillment.delivery import Poison
from billing.fulfillment.log import UsageLog
from billing.fulfillment.reading import Place, UsageRow, UsageSum
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration

START = 1_790_000_000_000


def test_given_rows_of_equal_times_when_paged_then_each_is_seen_once_newest_first(
    engine: sqlalchemy.Engine, log: UsageLog, clients: Callable[..., None]
) -> None:
    clients("acme", "bolt")
    events = [
        usage_event(
            "acme", lines=[paid_line(), paid_line("kib")], occurred_at=START + number // 4, at_milliseconds=START
        )
        for number in range(20)
    ]
    log.write([delivered(event) for event in [*events, usage_event("bolt")]])
    seen: list[UsageRow] = []
    place: Place | None = None
    with engine.connect() as connection:
        while page := reading.usage_page(connection, "acme", limit=7, before=place):
            assert len(page) == 7 or len(seen) == 35
            seen += page
            place = page[-1].place
    keys = [(row.occurred_at, row.run_id, row.line) for row in seen]
    assert keys == sorted(keys, reverse=True)
    assert sorted((row.run_id, row.line) for row in seen) == sorted((e.run_id, n) for e in events for n in (0, 1))
    assert seen[0].grants == [{"grant": 1, "credits": 10}]


def test_given_rows_when_summed_then_spent_rows_and_runs_are_those_of_the_log(
    engine: sqlalchemy.Engine, log: UsageLog, clients: Callable[..., None]
) -> None:
    clients("acme", "bolt", "crux")
    events = [usage_event("bolt", lines=[paid_line(), paid_line("kib", shares=[(1, 3)])]) for _ in range(3)]
    log.write([delivered(event) for event in [*events, usage_event("acme")]])
    with engine.connect() as connection:
        acme = UsageSum(client_id="acme", spent=10, rows=1, runs=1)
        bolt = UsageSum(client_id="bolt", spent=39, rows=6, runs=3)
        assert reading.usage_sums(connection) == [acme, bolt]
        assert reading.usage_sums(connection, ["bolt", "crux"]) == [bolt]
        assert reading.usage_sums(connection, []) == []
        with pytest.raises(InvalidValue, match=r"^limit: 0: "):
            reading.usage_page(connection, "acme", limit=0)


def test_given_dead_letters_when_counted_then_each_message_counts_once(
    engine: sqlalchemy.Engine, log: UsageLog
) -> None:
    for number in (0, 1, 2, 2, 2):
        log.write([delivered(Poison(reason=f"reason {number}"), body=b"%d" % number)])
    with engine.connect() as connection:
        assert dead_letters.count_open(connection) == 3
