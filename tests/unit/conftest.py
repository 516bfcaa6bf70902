"""The app of tests of billed tasks."""

from __future__ import annotations

from collections.abc import Iterator

import celery
import pytest

from tests.unit.selling import an_app


@pytest.fixture
def app() -> Iterator[celery.Celery]:
    """Make an app that is billed, whose messages stay in memory."""
    with an_app() as made:
        yield made
