"""The twin that bills the tasks whose hooks are overridden."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from billing.testing import BillingTwin
from tests.unit.selling import selling_pages


@pytest.fixture
def twin() -> Iterator[BillingTwin]:
    """Bill by a twin: 5 credits a page."""
    with selling_pages() as twin:
        twin.client("acme", 100)
        twin.client("poor", 4)
        yield twin
