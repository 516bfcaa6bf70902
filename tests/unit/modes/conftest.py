"""Fleets on a twin that run everything dry, or without a hold while Redis is away."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from billing.task.pending import Pending
from tests.unit.modes.shop import Business, business


@pytest.fixture
def dry() -> Iterator[Business]:
    """Run everything dry."""
    yield from business(dry_run=True)


@pytest.fixture
def metered(monkeypatch: pytest.MonkeyPatch) -> Iterator[Business]:
    """Run without a hold while Redis is away; debts are paid when the test says so."""
    monkeypatch.setattr(Pending, "_start", lambda _: None)
    yield from business(on_redis_down="meter_only")
