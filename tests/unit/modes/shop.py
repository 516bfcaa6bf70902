"""A shop of pages on a twin, whose calls of buckets get no answer when a test says so."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import celery
import pytest

import billing
from billing.admin.dry_runs import DryRuns, summed
from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.credits.twin.buckets import Twin
from billing.testing import BillingTwin
from tests.unit.selling import an_app, selling_pages

Business = tuple[BillingTwin, celery.Celery]


def business(**settings: Any) -> Iterator[Business]:
    """Bill an app by a twin that sells pages at 5 credits each."""
    with selling_pages(Settings(**settings), kib=1) as twin:
        yield twin, an_app()


def capture(app: celery.Celery, body: Callable[..., Any] | None = None, **options: Any) -> Any:
    """Declare a task that sells pages."""

    def pages(client_id: str | None, count: int = 1) -> int:
        return count if body is None else body()

    made: Any = app.task(shared=False, base=billing.BillableTask, **{"name": "shop.pages", "sku": "page", **options})
    return made(pages)


def redis_away(monkeypatch: pytest.MonkeyPatch, *verbs: str, error: type[Exception] = Unreachable) -> None:
    """Have calls of buckets get no answer."""

    def silent(*_: object, **__: object) -> None:
        raise error("Redis is away")

    for verb in verbs:
        monkeypatch.setattr(Twin, verb, silent)


def counted(twin: BillingTwin) -> list[DryRuns]:
    """Return what dry runs counted."""
    return [*summed(twin.runtime.twin.counts())]


def untouched(twin: BillingTwin, client_id: str, credits_: int) -> bool:
    """Whether a client has all that it was granted, and nothing is held."""
    balance = twin.balance(client_id)
    return (balance.available, balance.held, balance.spent, balance.owed) == (credits_, 0, 0, 0)
