"""pytest's fixtures of billing, found by the entry point of the package. Nothing is imported before one is used."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from billing.core.settings import Settings
    from billing.testing.twin import BillingTwin


@pytest.fixture
def billing_settings() -> Settings:
    """Give the settings under which the twin bills: the defaults. Override it for others."""
    from billing.core.settings import Settings  # noqa: PLC0415 - the plugin is loaded into every run of the user's

    return Settings()


@pytest.fixture
def billing_twin(billing_settings: Settings) -> Iterator[BillingTwin]:
    """Bill in memory for one test: no server, time that the test moves, and everything there to look at."""
    from billing.testing.twin import BillingTwin  # noqa: PLC0415 - the same

    twin = BillingTwin(billing_settings)
    with twin.billing():
        yield twin
