"""The fixtures `fleet` (servers of a test's own, nothing running) and `running_fleet` (one for a module, running)."""

from __future__ import annotations

import gc
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import redis

from billing import admin
from billing.embedded.stack import Stack
from billing.integration.configuration import read_settings
from billing.schema.migrate import migrate
from tests.databases import cloned
from tests.fleet.harness import PRICES, Fleet
from tests.fleet.tasks import make_app


@pytest.fixture
def fleet_settings() -> dict[str, str]:
    """Further settings of the fleet; a module overrides it."""
    return {}


@pytest.fixture
def fleet(
    redis_url: str,
    result_url: str,
    broker_url: str,
    database_url: str,
    tmp_path: Path,
    fleet_settings: dict[str, str],
) -> Iterator[Fleet]:
    """Make a fleet on servers of this test's own, nothing running yet."""
    servers = {
        "BILLING_REDIS_URL": redis_url,
        "BILLING_RESULT_URL": result_url,
        "BILLING_BROKER_URL": broker_url,
        "BILLING_DATABASE_URL": database_url,
    }
    with make_fleet(servers | fleet_settings, tmp_path) as made:
        yield made


@pytest.fixture(scope="module")
def running_fleet(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Run a worker of two processes and a consumer for a whole module. Tests bring clients of their own."""
    with module_servers(stack) as servers, make_fleet(servers, tmp_path_factory.mktemp("fleet")) as made:
        made.consumer(wait=False)
        made.worker()
        yield made


@contextmanager
def module_servers(stack: Stack) -> Iterator[dict[str, str]]:
    """Yield the addresses of servers that are a module's own: Redis emptied, a database, a virtual host."""
    if stack.rabbitmq is None:
        pytest.skip("RabbitMQ is not installed")
    name = f"fleet-{uuid.uuid4().hex[:12]}"
    with redis.Redis.from_url(stack.endpoints.redis_url) as client:
        client.flushall()
    with cloned(stack.postgres, "template0") as database_url:
        try:
            yield {
                "BILLING_REDIS_URL": stack.endpoints.redis_url,
                "BILLING_RESULT_URL": stack.endpoints.result_url,
                "BILLING_BROKER_URL": stack.rabbitmq.add_virtual_host(name),
                "BILLING_DATABASE_URL": database_url,
            }
        finally:
            stack.rabbitmq.remove_virtual_host(name)


@contextmanager
def make_fleet(environment: Mapping[str, str], directory: Path, *, made: type[Fleet] = Fleet) -> Iterator[Fleet]:
    """Migrate, set the prices, and stop everything afterwards."""
    full = {
        "BILLING_SHARDS": "4",
        "BILLING_LEASE_SECONDS": "3",
        "BILLING_RELAY_AFTER_SECONDS": "1",
        "BILLING_UNAVAILABLE_RETRY_SECONDS": "0.5",
        "BILLING_EXHAUSTED_WAIT_SECONDS": "0.5",
        "FLEET_DIRECTORY": str(directory),
        **environment,
    }
    # The test itself waits for its servers as long as a busy machine may need; the fleet has production's bounds.
    app = make_app(full | {"BILLING_REDIS_TIMEOUT_SECONDS": "60", "BILLING_DATABASE_TIMEOUT_SECONDS": "60"})
    settings = read_settings(app)
    migrate(settings)
    for sku, credits_per_unit in PRICES.items():
        admin.set_price(settings, sku, credits_per_unit, "unit")
    fleet = made(app, settings, full, directory)
    try:
        yield fleet
    finally:
        fleet.stop()
        # Results that a test dropped unsubscribe when they are collected, which needs the backend.
        gc.collect()
        backend: Any = app.backend
        backend.client.close()
        app.close()
