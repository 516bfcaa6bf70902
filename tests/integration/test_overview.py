"""A reading of the whole fleet says what is there: each number against a fleet in a known state."""

from __future__ import annotations

import pytest

from billing.connections import broker
from billing.events import topology
from billing.observability.overview.reading import read_fleet
from tests.integration.recovering import Business

pytestmark = pytest.mark.integration


def declare(business: Business) -> None:
    """Declare the usage queues, as a worker does."""
    with broker.connection(business.settings) as connection:
        topology.declare(business.settings, connection.default_channel)


def test_given_a_quiet_fleet_then_every_part_of_a_reading_is_there_and_zero(business: Business) -> None:
    declare(business)
    state = read_fleet(business.runtime)
    assert state.servers == {"Redis": True, "PostgreSQL": True, "broker": True}
    assert state.outbox is not None
    assert (state.outbox.events, state.outbox.oldest_seconds) == (0, 0.0)
    assert state.holds is not None
    assert (state.holds.count, state.holds.credits, state.holds.overdue_seconds) == (0, 0, 0.0)
    assert state.queues is not None
