"""What the tests of blocks share: a fleet that this very process uses, and what its clients have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import billing
from billing.task.attachment import attachment_of
from billing.task.block import Block
from tests.fleet.harness import Fleet
from tests.fleet.tasks import SKU


@contextmanager
def used_here(fleet: Fleet) -> Iterator[Fleet]:
    """Use a fleet from this very process, and leave no connection behind."""
    yield fleet
    attachment = attachment_of(fleet.app)
    attachment.lifecycle.close()
    attachment.runtime.close()


def reserve(fleet: Fleet, client_id: str, sku: str = SKU, quantity: int = 1, **options: Any) -> Block:
    """Reserve with the settings of the test's fleet."""
    return billing.reserve(client_id, sku, quantity, app=fleet.app, **options)


def books(fleet: Fleet, client_id: str) -> tuple[int, int, int]:
    """Return what a client has available, held and spent."""
    balance = fleet.balance(client_id)
    return balance.available, balance.held, balance.spent
