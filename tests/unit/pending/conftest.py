"""What a worker still owes, and the Redis that it owes it to."""

from __future__ import annotations

import pytest

from billing.task.pending import Pending
from tests.unit.pending.owing import Redis, node_of


@pytest.fixture
def redis() -> Redis:
    """Return a Redis that answers."""
    return Redis()


@pytest.fixture
def pending(redis: Redis, monkeypatch: pytest.MonkeyPatch) -> Pending:
    """Return debts that are paid only when the test says so."""
    monkeypatch.setattr(Pending, "_start", lambda _: None)
    return Pending(redis.forget, node_of)
