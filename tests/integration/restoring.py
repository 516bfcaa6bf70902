"""What the tests of a restored database share: a dump, a restore of it, a fleet's reports to the stand-in."""

from __future__ import annotations

import dataclasses
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import psycopg

from billing import admin
from billing.admin.access import runtime_for
from billing.catalog.clients import add_client
from billing.core.settings import Settings
from billing.embedded.postgres import binaries
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.sandbox.control import SandboxControl
from tests.integration.invoicing import write_usage
from tests.waiting import wait_until

METER = "billing_credits"
_SECONDS = 120


@contextmanager
def restoring_of(settings: Settings, stripe: SandboxControl, directory: Path) -> Iterator[Restoring]:
    """Have a database report to the stand-in, whose meter is set up, early in a minute; close what was opened."""
    settings = dataclasses.replace(settings, stripe_sandbox_url=stripe.url, stripe_periods="calendar")
    with Gateway(settings) as gateway:
        gateway.setup()
    _wait_for_a_minute()
    yield Restoring(settings=settings, stripe=stripe, directory=directory)
    admin.close(settings)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Restoring:
    """A database that is dumped and restored, and the stand-in that it reports to."""

    settings: Settings
    stripe: SandboxControl
    directory: Path

    def dump(self, name: str = "billing.dump") -> Path:
        """Write a dump."""
        path = self.directory / name
        _run("pg_dump", "--format=custom", f"--file={path}", self.settings.database_url)
        return path

    def copy(self) -> str:
        """Copy the database as its directory is copied: tables keep their numbers; return its name."""
        admin.close(self.settings)
        copy = f"{self._name}_copy"
        self._alone(f"DROP DATABASE IF EXISTS {copy}", f"CREATE DATABASE {copy} TEMPLATE {self._name}")
        return copy

    def put_back(self, copy: str) -> None:
        """Put a copy in the place of the database: it is as it was at that moment."""
        admin.close(self.settings)
        self._alone(f"DROP DATABASE {self._name} WITH (FORCE)", f"CREATE DATABASE {self._name} TEMPLATE {copy}")

    def drop(self, copy: str) -> None:
        """Remove a copy."""
        self._alone(f"DROP DATABASE {copy}")

    def restore(self, dump: Path) -> None:
        """Put a dump in the place of the database, as docs/operations.md does."""
        admin.close(self.settings)
        self._alone(f"DROP DATABASE {self._name} WITH (FORCE)", f"CREATE DATABASE {self._name} TEMPLATE template0")
        _run("pg_restore", "--exit-on-error", "--dbname", self.settings.database_url, str(dump))

    @property
    def _name(self) -> str:
        return urlsplit(self.settings.database_url).path.strip("/")

    def _alone(self, *statements: str) -> None:
        """Run statements beside the database."""
        server = self.settings.database_url.removesuffix(self._name) + "postgres"
        with psycopg.connect(server, autocommit=True) as connection:
            for statement in statements:
                connection.execute(statement.encode())

    def client(self, client_id: str) -> str:
        """Add a client with a customer of its own; return the customer."""
        with Gateway(self.settings) as gateway:
            customer = gateway.create_customer(client_id)
        self.known(client_id, customer)
        return customer

    def known(self, client_id: str, customer: str) -> None:
        """Add a client that has a customer."""
        with runtime_for(self.settings).engine.begin() as connection:
            add_client(connection, client_id, self.settings.shards)
        admin.link_client(self.settings, client_id, customer)

    def use(self, client_id: str, credits: int) -> None:
        """Write usage of an hour ago to the log, as the consumer does."""
        write_usage(self.settings, client_id, credits, datetime.now(UTC) - timedelta(hours=1))

    def report(self) -> None:
        """Plan, push and confirm."""
        admin.sync_plan(self.settings)
        admin.sync_push(self.settings)
        admin.sync_confirm(self.settings)

    def sql(self, statement: str, *given: object) -> list[tuple[object, ...]]:
        """Run a statement; return what it finds."""
        with psycopg.connect(self.settings.database_url, autocommit=True) as connection:
            done = connection.execute(statement.encode(), given)
            return done.fetchall() if done.description else []

    def told(self, customer: str) -> int:
        """Return the units that Stripe has of a customer."""
        return self.stripe.total(customer, METER)

    def states(self) -> dict[str, int]:
        """Return the units of increments by state."""
        return dict(self.sql("SELECT state, sum(units)::bigint FROM stripe_increment GROUP BY 1"))  # type: ignore[arg-type]


def _wait_for_a_minute() -> None:
    """Return while enough of a minute is to come for a test, which reports, adopts without a wait and reports again.

    Each takes the latest free minute. Had the minute ended before the adoption, the second report would go back to the
    one in which Stripe has units that the books lost, and be taken for counted twice. Hours later none goes that far.
    """
    wait_until(lambda: datetime.now(UTC).second < 40, "a minute begins")


def _run(program: str, *arguments: str) -> None:
    subprocess.run([str(binaries() / program), *arguments], check=True, timeout=_SECONDS, capture_output=True)
