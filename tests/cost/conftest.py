"""A place of its own for each part of what is counted."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from billing.embedded.rabbitmq import RabbitMQ
from billing.embedded.stack import Stack
from tests.cost.place import Place, place_on


@pytest.fixture
def place(stack: Stack, rabbitmq: RabbitMQ) -> Iterator[Place]:
    """Open a place on the session's servers."""
    with place_on(stack) as made:
        yield made
