"""What tests of billed tasks share: an app that stays in memory, and a twin that sells pages at 5 credits each."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import celery

import billing
from billing.core.settings import Settings
from billing.testing import BillingTwin


def an_app(name: str = "shop", **options: Any) -> celery.Celery:
    """Return an app that is billed; its messages and results stay in memory."""
    made = celery.Celery(name, broker="memory://", backend="cache+memory://", set_as_current=False, **options)
    return billing.setup(made)


@contextmanager
def selling_pages(settings: Settings | None = None, **others: int) -> Iterator[BillingTwin]:
    """Bill by a twin whose pages cost 5 credits each, and what is named besides as much as is said."""
    twin = BillingTwin(settings)
    for sku, credits_per_unit in {"page": 5, **others}.items():
        twin.price(sku, credits_per_unit)
    with twin.billing():
        yield twin
