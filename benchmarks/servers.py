"""What the groups measure on: the embedded stack with fsync on, and deployments of billing that share nothing.

A deployment has a Redis database, a PostgreSQL database and a virtual host of RabbitMQ to itself, so that what one side
of a comparison leaves behind is never in the way of the other. They go when the context ends.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import kombu
import psycopg
import redis
from psycopg import sql

from benchmarks.hot_bucket import MARKS, SPARE_SESSIONS
from benchmarks.reserve_load import programs
from billing import admin
from billing.core.settings import Settings
from billing.embedded.server import NotInstalled
from billing.embedded.stack import Stack
from billing.schema.migrate import migrate


class Servers(Stack):
    """The servers of one run of the benchmarks. `quick` asks the groups for fewer rounds."""

    def __init__(self, *, quick: bool = False) -> None:
        super().__init__()
        self.quick = quick
        self.postgres.settings = {
            **self.postgres.settings,
            "max_connections": str(max(MARKS) + SPARE_SESSIONS),
        }

    def versions(self) -> dict[str, str]:
        """Return the version of each server, as it tells it itself, and of the programs that load them."""
        found: dict[str, str] = {}
        with psycopg.connect(self.postgres.url_of("postgres")) as connection:
            answered = connection.execute("SHOW server_version").fetchone()
            found["PostgreSQL"] = str(answered[0]) if answered else ""
        with redis.Redis.from_url(self.endpoints.redis_url) as client:
            told: Any = client.info("server")
            name = "Valkey" if "valkey_version" in told else "Redis"
            found[name] = str(told.get("valkey_version") or told["redis_version"])
        if self.rabbitmq is not None:
            with kombu.Connection(self.rabbitmq.url) as broker:
                broker.connect()
                properties: Any = broker.connection
                found["RabbitMQ"] = str(properties.server_properties["version"])
        for program in programs() or ():
            said = subprocess.run([program, "--version"], capture_output=True, text=True, check=False).stdout.split()
            found[Path(program).name] = next((word for word in said if word[0].isdigit()), "unknown")
        return found

    def empty(self) -> None:
        """Empty both Valkeys, before the next group."""
        for url in (self.endpoints.redis_url, self.endpoints.result_url):
            with redis.Redis.from_url(url) as client:
                client.flushall()

    @contextmanager
    def deployment(self, name: str, *, redis_database: int, prices: Sequence[tuple[str, int]]) -> Iterator[Settings]:
        """Yield the settings of a migrated deployment of billing of its own, with some prices (SKU, credits).

        Raises `NotInstalled` without RabbitMQ.
        """
        with self.virtual_host(name) as broker_url:
            settings = Settings(
                redis_url=self.valkey.url_of(redis_database),
                result_url=self.endpoints.result_url,
                database_url=self.fresh_database(name),
                broker_url=broker_url,
            )
            migrate(settings)
            try:
                for sku, credits_per_unit in prices:
                    admin.set_price(settings, sku, credits_per_unit, "unit")
                yield settings
            finally:
                admin.close(settings)

    @contextmanager
    def virtual_host(self, name: str) -> Iterator[str]:
        """Yield the URL of a virtual host of RabbitMQ. Raises `NotInstalled` without it."""
        if self.rabbitmq is None:
            raise NotInstalled("RabbitMQ is not installed")
        url = self.rabbitmq.add_virtual_host(f"benchmark-{name}")
        try:
            yield url
        finally:
            self.rabbitmq.remove_virtual_host(f"benchmark-{name}")

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Let PostgreSQL take in tables of gigabytes: no vacuum beside it, and no checkpoint each gigabyte.

        Nothing is measured within: what is loaded is vacuumed and checkpointed at its end, as months that are over are.
        """
        with psycopg.connect(self.postgres.url_of("postgres"), autocommit=True) as connection:
            try:
                connection.execute("ALTER SYSTEM SET max_wal_size = '16GB'")
                connection.execute("ALTER SYSTEM SET autovacuum = off")
                connection.execute("SELECT pg_reload_conf()")
                yield
            finally:
                connection.execute("ALTER SYSTEM RESET max_wal_size")
                connection.execute("ALTER SYSTEM RESET autovacuum")
                connection.execute("SELECT pg_reload_conf()")

    def fresh_database(self, name: str) -> str:
        """Make an empty PostgreSQL database and return its URL; one of that name goes."""
        self.drop_database(name)
        with psycopg.connect(self.postgres.url_of("postgres"), autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(f"benchmark_{name}")))
        return self.postgres.url_of(f"benchmark_{name}")

    def drop_database(self, name: str) -> None:
        """Drop a database that `fresh_database` made, with whoever is connected to it; its disk is free again."""
        with psycopg.connect(self.postgres.url_of("postgres"), autocommit=True) as connection:
            database = sql.Identifier(f"benchmark_{name}")
            connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(database))
