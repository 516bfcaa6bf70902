"""The books that the suite runs on. A second `IncrementLog` adds its own here, and changes no test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from billing.connections import postgres
from billing.core.settings import Settings
from billing.embedded.stack import Stack
from tests.contract.increments.books import Books, MemoryBooks, PostgresBooks
from tests.databases import make_migrated

BOOKS = ("postgres", "memory")
TEMPLATE = "increments_template"


@pytest.fixture(scope="session")
def database_template(stack: Stack) -> str:
    """Make a migrated database that nobody is connected to."""
    return make_migrated(stack.postgres, TEMPLATE)


@pytest.fixture
def in_postgres(database_url: str) -> Iterator[Books]:
    """Make books in PostgreSQL."""
    made = PostgresBooks(postgres.engine(Settings(database_url=database_url, database_timeout_seconds=60.0)))
    yield made
    made.close()


@pytest.fixture(params=BOOKS)
def books(request: pytest.FixtureRequest) -> Books:
    """Make empty books."""
    made: Books = MemoryBooks() if request.param == "memory" else request.getfixturevalue("in_postgres")
    return made
