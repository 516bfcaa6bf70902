"""Databases of the tests: empty ones, migrated ones, and copies of them that are gone at the end."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from billing.core.settings import Settings
from billing.embedded.postgres import Postgres
from billing.schema.migrate import migrate


def make_empty(server: Postgres, name: str) -> None:
    """Make an empty database, also where an earlier borrower of the server has left one of that name."""
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))


def make_migrated(server: Postgres, name: str) -> str:
    """Make a migrated database that nobody is connected to, to be cloned; return its name."""
    make_empty(server, name)
    migrate(Settings(database_url=server.url_of(name)))
    return name


def databases_of(server: Postgres) -> set[str]:
    """Return the names of all databases."""
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as connection:
        return {str(name) for (name,) in connection.execute("SELECT datname FROM pg_database")}


@contextmanager
def cloned(server: Postgres, template: str) -> Iterator[str]:
    """Yield the URL of a copy of a database; it goes with whoever is still connected to it."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(server.url_of("postgres"), autocommit=True) as connection:
        statement = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy")
        connection.execute(statement.format(sql.Identifier(name), sql.Identifier(template)))
    try:
        yield server.url_of(name)
    finally:
        with psycopg.connect(server.url_of("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
