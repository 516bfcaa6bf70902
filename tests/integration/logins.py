"""Logins of the test's own, each in one of billing's group roles."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import sqlalchemy

from billing.core.settings import Settings


@contextmanager
def login(database: Settings, *options: str) -> Iterator[Settings]:
    """Make a login with some options of CREATE ROLE; within, these settings log in with it."""
    name, password = f"login_{uuid.uuid4().hex[:12]}", uuid.uuid4().hex
    with psycopg.connect(database.database_url, autocommit=True) as owner:
        owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{password}' {' '.join(options)}".encode())
        try:
            url = sqlalchemy.make_url(database.database_url).set(username=name, password=password)
            yield dataclasses.replace(database, database_url=url.render_as_string(hide_password=False))
        finally:
            owner.execute(f"DROP OWNED BY {name} CASCADE".encode())
            owner.execute(f"DROP ROLE {name}".encode())
