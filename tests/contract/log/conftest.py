"""The stores that the suite runs on. A second implementation of `UsageLog` adds its own here, and changes no test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from billing.core.settings import Settings
from billing.embedded.stack import Stack
from billing.fulfillment.log import UsageLog
from tests.contract.log.plain import PlainStore
from tests.contract.log.postgres import PostgresStore
from tests.contract.log.store import Store
from tests.databases import make_migrated

STORES = ("postgres", "plain")
TEMPLATE = "contract_template"


@pytest.fixture(scope="session")
def database_template(stack: Stack) -> str:
    """Make a migrated database that nobody is connected to."""
    return make_migrated(stack.postgres, TEMPLATE)


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest) -> Iterator[Store]:
    """Make an empty store."""
    made: Store
    if request.param == "plain":
        made = PlainStore()
    else:
        url = request.getfixturevalue("database_url")
        made = PostgresStore(Settings(database_url=url, database_timeout_seconds=60.0))
    yield made
    made.close()


@pytest.fixture
def log(store: Store) -> UsageLog:
    """Make a log on the store."""
    return store.log()
