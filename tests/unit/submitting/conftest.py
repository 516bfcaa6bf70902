"""The twin that bills what is submitted, and the headers of what is published."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import signals

from billing.testing import BillingTwin
from tests.unit.selling import selling_pages


@pytest.fixture
def twin() -> Iterator[BillingTwin]:
    """Bill by a twin: 5 credits a page, and 1 an extra."""
    with selling_pages(extra=1) as twin:
        twin.client("acme", 100)
        yield twin


@pytest.fixture
def published() -> Iterator[list[dict[str, Any]]]:
    """Collect the headers of what is published, and what else the broker is given."""
    seen: list[dict[str, Any]] = []

    def keep(headers: Any = None, properties: Any = None, **_: Any) -> None:
        assert not [name for name in properties if name.startswith("billing_")]
        seen.append({name: value for name, value in headers.items() if name.startswith("billing_")})

    signals.before_task_publish.connect(keep, weak=False)
    yield seen
    signals.before_task_publish.disconnect(keep)
