"""The places that the suite runs on. A second implementation of `MeterSink` adds its own here, and changes no test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from billing.sinks.sink import MeterSink
from tests.contract.sinks.memory import MemoryPlace
from tests.contract.sinks.place import Place
from tests.contract.sinks.stand_in import StandInPlace

PLACES = ("stripe", "memory")


@pytest.fixture(params=PLACES)
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    """Make an empty account."""
    made: Place
    if request.param == "memory":
        made = MemoryPlace()
    else:
        control, client = (request.getfixturevalue(name) for name in ("stripe_sandbox", "stripe_client"))
        made = StandInPlace(control, client)
    yield made
    made.close()


@pytest.fixture
def sink(place: Place) -> MeterSink:
    """Make a sink of the place."""
    return place.sink()
