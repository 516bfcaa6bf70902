"""Integration tests get a database that holds the schema: migrated once per session, cloned for each test."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from datetime import UTC, datetime

import psycopg
import pytest
import sqlalchemy

from billing import admin
from billing.catalog.clients import add_client
from billing.connections import postgres
from billing.core.settings import Settings
from billing.embedded.postgres import Postgres
from billing.fulfillment.log import UsageLog
from billing.fulfillment.postgres_log import PostgresUsageLog
from tests import browser as chromium
from tests.browser import Browser
from tests.conftest import missing
from tests.databases import make_migrated
from tests.integration.alerting import Scene
from tests.integration.allowing import Office
from tests.integration.market import Market
from tests.integration.recovering import Business, business_on
from tests.integration.topping_up import HOOK, opened
from tests.terminal import bare, shop, terminal
from tests.wheels import wheel, wheel_environment

__all__ = ["bare", "shop", "terminal", "wheel", "wheel_environment"]

TEMPLATE = "test_template"


@pytest.fixture(scope="session")
def migrated_at() -> datetime:
    """Return the moment before the tests' database is migrated: the months that it has count from then."""
    return datetime.now(UTC)


@pytest.fixture(scope="session")
def database_template(postgres_server: Postgres, migrated_at: datetime) -> str:
    """Make a migrated database that nobody is connected to."""
    return make_migrated(postgres_server, TEMPLATE)


@pytest.fixture
def database(database_url: str) -> Settings:
    """Return settings that name this test's database, and wait for servers as long as a busy machine may need."""
    return Settings(database_url=database_url, database_timeout_seconds=60.0, redis_timeout_seconds=60.0)


@pytest.fixture
def engine(database: Settings) -> Iterator[sqlalchemy.Engine]:
    """Yield an engine for this test's database."""
    engine = postgres.engine(database)
    yield engine
    engine.dispose()


@pytest.fixture
def session(database: Settings) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """Yield a bare connection that commits each statement: it sees what is there, with the owner's powers."""
    with psycopg.connect(database.database_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def clients(engine: sqlalchemy.Engine, database: Settings) -> Callable[..., None]:
    """Return what adds clients."""

    def add(*client_ids: str) -> None:
        with engine.begin() as connection:
            for client_id in client_ids:
                add_client(connection, client_id, database.shards)

    return add


@pytest.fixture
def business(database: Settings, redis_url: str, broker_url: str) -> Iterator[Business]:
    """Open a business with the client acme."""
    with business_on(database, redis_url, broker_url) as business:
        business.client("acme")
        yield business


@pytest.fixture
def scene(redis_url: str, database: Settings, request: pytest.FixtureRequest) -> Iterator[Scene]:
    """Set the scene; webhooks have a minute to answer, or as long as the test says."""
    bound = getattr(request, "param", 60.0)
    settings = dataclasses.replace(database, redis_url=redis_url, webhook_timeout_seconds=bound)
    made = Scene(settings)
    yield made
    made.close()


@pytest.fixture
def market(database: Settings, redis_url: str) -> Iterator[Market]:
    """Open a market whose shop answers as the test says."""
    settings = dataclasses.replace(database, redis_url=redis_url, top_up_hook=HOOK)
    with opened() as shop:
        made = Market(settings, shop)
        yield made
        made.close()


@pytest.fixture
def office(database: Settings, redis_url: str) -> Iterator[Office]:
    """Open an office with the client acme."""
    settings = dataclasses.replace(database, redis_url=redis_url)
    made = Office(settings)
    made.client("acme")
    yield made
    made.runtime.close()
    admin.close(settings)


@pytest.fixture
def make_log(database: Settings) -> Iterator[Callable[[], UsageLog]]:
    """Yield what makes usage logs, each with a connection of its own; they are closed afterwards."""
    made: list[UsageLog] = []

    def make() -> UsageLog:
        made.append(PostgresUsageLog(lambda: postgres.connect(database), shards=database.shards))
        return made[-1]

    yield make
    for log in made:
        log.close()


@pytest.fixture
def log(make_log: Callable[[], UsageLog]) -> UsageLog:
    """Make a usage log."""
    return make_log()


@pytest.fixture
def settings(database: Settings) -> Iterator[Settings]:
    """Give the settings of this test's database; what was connected is closed."""
    yield database
    admin.close(database)


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Run one browser for all tests of a file."""
    if chromium.program() is None:
        missing("Chromium: not installed (Debian: chromium)")
    with chromium.running(tmp_path_factory.mktemp("chromium")) as running:
        yield running
