"""What a rebuild reads: bounded statements, whatever a shard holds (L9)."""

from __future__ import annotations

import uuid

import pytest
import sqlalchemy

from billing.core.settings import Settings
from billing.fulfillment.log import UsageLog
from billing.recovery import facts
from billing.recovery.rebuild import assertion_seconds
from tests.usage_events import delivered, paid_line, usage_event

pytestmark = pytest.mark.integration


def test_given_70_000_holds_when_the_log_is_asked_for_their_runs_then_it_answers_with_their_settlements(
    engine: sqlalchemy.Engine, log: UsageLog, clients: object
) -> None:
    """A statement takes 65,535 parameters; a shard with more holds must come back all the same (L6)."""
    assert callable(clients)
    clients("acme")
    lines = [paid_line(), paid_line("kib")]
    charged = [usage_event("acme", lines=lines) for _ in range(3)]
    log.write([delivered(event) for event in charged])
    running = [uuid.uuid4() for _ in range(70_000)]
    with engine.connect() as connection:
        found = facts.logged_runs(connection, [*running[:100], *(event.run_id for event in charged), *running[100:]])
        assert facts.logged_runs(connection, []) == {}
    assert found == {event.run_id: event.settlement_id for event in charged}


def test_given_slow_answers_of_redis_when_workers_assert_their_holds_then_the_wait_covers_every_try() -> None:
    """L6: one renewal interval, and all that its call to Redis may take, and a second."""
    settings = Settings(lease_seconds=60, redis_timeout_seconds=4, redis_retries=2)
    assert assertion_seconds(settings) == pytest.approx(20 + 4 * 3 + 1)
