"""What a test does to a fleet whose clients cannot pay, or whose shards recover: tasks that wait, and their end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import text

from billing import admin
from billing.ledger.locks import try_lead_recovery
from tests.fleet.deliveries import deliveries
from tests.fleet.harness import Fleet
from tests.waiting import wait_until


def task(fleet: Fleet, name: str, *args: Any, **options: Any) -> Any:
    """Return the signature of a task of the workers."""
    return fleet.app.signature(name, args=args, immutable=True, options=options)


def poor(fleet: Fleet, client_id: str) -> str:
    """Make a client that cannot pay for a task."""
    return fleet.client(client_id, 5)


def pay(fleet: Fleet, client_id: str, credits: int) -> None:
    """Grant a client what it lacks."""
    assert admin.grant(fleet.settings, client_id, credits, key="second")[1]


def wait_for_deliveries(fleet: Fleet, task_id: str, count: int) -> list[dict[str, Any]]:
    """Wait until a task has been delivered so often, and return what each delivery said."""
    wait_until(lambda: len(deliveries(fleet.directory, task_id)) >= count, f"{count} deliveries of {task_id}")
    return deliveries(fleet.directory, task_id)


@contextmanager
def closed(fleet: Fleet, shard: int) -> Iterator[None]:
    """Close a shard, and keep the fleet from rebuilding it until the block is left."""
    with fleet.runtime.engine.begin() as leader:
        leader.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        wait_until(lambda: try_lead_recovery(leader, 0), "nobody else leads a recovery")
        fleet.buckets.close(shard)
        yield
