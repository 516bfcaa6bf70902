"""The fixture `fleet`: servers of this test's own, with schema and prices, and nothing running yet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from billing import admin
from billing.integration.configuration import read_settings
from billing.schema.migrate import migrate
from tests.integration.fleet.harness import PRICES, Fleet
from tests.integration.fleet.tasks import make_app


@pytest.fixture
def fleet_settings() -> dict[str, str]:
    """Further settings of the fleet; a test overrides it with `parametrize(..., indirect=True)` or its own fixture."""
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
    """A fleet on servers of its own."""
    environment = {
        "BILLING_REDIS_URL": redis_url,
        "BILLING_RESULT_URL": result_url,
        "BILLING_BROKER_URL": broker_url,
        "BILLING_DATABASE_URL": database_url,
        "BILLING_SHARDS": "4",
        "BILLING_LEASE_SECONDS": "3",
        "BILLING_RELAY_AFTER_SECONDS": "1",
        "BILLING_UNAVAILABLE_RETRY_SECONDS": "0.5",
        "FLEET_DIRECTORY": str(tmp_path),
        **fleet_settings,
    }
    app = make_app(environment)
    settings = read_settings(app)
    migrate(settings)
    for sku, credits_per_unit in PRICES.items():
        admin.set_price(settings, sku, credits_per_unit, "unit")
    fleet = Fleet(app, settings, environment, tmp_path)
    try:
        yield fleet
    finally:
        fleet.stop()
        app.backend.client.close()
        app.close()
