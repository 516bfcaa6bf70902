"""What the tests of the report to Stripe share: usage as the consumer leaves it, a clock, linked clients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import sqlalchemy

from billing.catalog.clients import add_client
from billing.core.settings import Settings
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.keys import KeyKind
from billing.sinks.stripe.links import link
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.sinks.sync.calling.confirmer import Confirmer
from billing.sinks.sync.calling.pusher import Pusher
from billing.sinks.sync.calling.reports import Reports
from billing.sinks.sync.planning.planner import ROWS, Planner, PlanRules
from billing.sinks.sync.postgres.log import PostgresLog

METER = "billing_credits"
#: Clients of these tests have no subscriptions: their periods are months.
CALENDAR = PlanRules(meter=METER, calendar=True)
NOON = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)


class TestClock:
    """A clock that the test moves; its monotonic time goes with it."""

    __test__ = False

    def __init__(self, now: datetime = NOON) -> None:
        self._now = now

    def now(self) -> datetime:
        """Return the instant that the test chose."""
        return self._now

    def monotonic(self) -> float:
        """Return seconds that go with it."""
        return self._now.timestamp()

    def advance(self, delta: timedelta) -> None:
        """Move it."""
        self._now += delta


@dataclasses.dataclass(frozen=True, kw_only=True)
class Syncing:
    """A database with a clock and, where a test has one, a stand-in."""

    engine: sqlalchemy.Engine
    settings: Settings
    clock: TestClock

    def add(self, client_id: str, customer_id: str | None = None) -> str | None:
        """Add a client, linked if a customer is given; return the customer."""
        with self.engine.begin() as connection:
            add_client(connection, client_id, self.settings.shards)
            if customer_id is not None:
                link(connection, client_id, customer_id)
        return customer_id

    def use(self, client_id: str, credits: int, *, sku: str = "page", hour: datetime | None = None) -> None:
        """Add usage to a rollup, as a consumer's batch does."""
        statement = """
            INSERT INTO usage_rollup AS rollup (client_id, sku, hour, credits, quantity)
            VALUES (:client_id, :sku, date_trunc('hour', CAST(:hour AS timestamptz)), :credits, 1)
            ON CONFLICT (client_id, sku, hour) DO UPDATE SET credits = rollup.credits + excluded.credits
        """
        given = {"client_id": client_id, "sku": sku, "hour": hour or self.clock.now(), "credits": credits}
        with self.engine.begin() as connection:
            connection.execute(sqlalchemy.text(statement), given)

    def customer(self, client_id: str) -> str:
        """Add a client that is linked to a new customer; return the customer."""
        with self.gateway() as gateway:
            made = gateway.create_customer(client_id)
        self.add(client_id, made)
        return made

    def planned(self, client_id: str = "acme", credits: int = 7) -> str:
        """Add a linked client with one planned increment; return its customer."""
        made = self.customer(client_id)
        self.use(client_id, credits)
        self.planner().plan()
        return made

    def planner(self, *, rows: int = ROWS, rules: PlanRules = CALENDAR) -> Planner:
        """Return a planner."""
        return Planner(PostgresLog(self.engine), self.clock, rules, rows=rows)

    def pusher(self, open_sink: Callable[[], Any] | None = None, *, books: KeyKind = KeyKind.STAND_IN) -> Pusher:
        """Return a pusher, of the stand-in unless told otherwise."""
        sink = open_sink or self.gateway
        return Pusher(PostgresLog(self.engine), self.clock, sink, books=books.value, backoff_seconds=0.001)

    def confirmer(self, books: KeyKind = KeyKind.STAND_IN) -> Confirmer:
        """Return a confirmer."""
        return Confirmer(PostgresLog(self.engine), self.clock, self.gateway, books=books.value)

    def reports(self, open_sink: Callable[[], Any] | None = None) -> Reports:
        """Return what reads Stripe's error reports."""
        return Reports(PostgresLog(self.engine), self.clock, open_sink or self.gateway)

    def gateway(self) -> Gateway:
        """Return a gateway that waits as long as a busy machine may need."""
        return Gateway(self.settings, timeouts_seconds=(60.0, 60.0))

    def read(self, query: str, **given: object) -> list[Any]:
        """Return what a query finds."""
        with self.engine.connect() as connection:
            return list(connection.execute(sqlalchemy.text(query), given))

    def states(self) -> dict[str, int]:
        """Return state → number of increments."""
        return {row.state: row.n for row in self.read("SELECT state, count(*) AS n FROM stripe_increment GROUP BY 1")}

    def laws(self) -> None:
        """Assert L8 inside the database: each planned credit is in exactly one part, each part in its increment."""
        sums = self.read("""
            SELECT (SELECT coalesce(sum(planned), 0) FROM usage_rollup) AS planned,
                   (SELECT coalesce(sum(units * credits_per_unit), 0) FROM stripe_increment) AS units,
                   (SELECT coalesce(sum(credits_to - credits_from), 0) FROM stripe_increment_part) AS parts
        """)[0]
        assert sums.planned == sums.units == sums.parts
        torn = self.read("""
            SELECT * FROM (
                SELECT client_id, sku, hour, credits_from,
                       lag(credits_to, 1, 0::bigint) OVER hours AS upto
                FROM stripe_increment_part JOIN stripe_increment USING (increment_id)
                WINDOW hours AS (PARTITION BY client_id, sku, hour ORDER BY credits_from)
            ) AS parts WHERE credits_from <> upto
        """)
        assert torn == []


def at_noon(engine: sqlalchemy.Engine, database: Settings, stripe_sandbox: SandboxControl) -> Syncing:
    """Return a database beside a stand-in that has the meter; both are at noon of one day."""
    stripe_sandbox.set_time(int(NOON.timestamp()))
    settings = Settings(
        database_url=database.database_url, stripe_sandbox_url=stripe_sandbox.url, stripe_periods="calendar"
    )
    with Gateway(settings) as gateway:
        gateway.setup()
    return Syncing(engine=engine, settings=settings, clock=TestClock())


def open_session(settings: Settings) -> psycopg.Connection[Any]:
    """Return a connection of its own, for what happens at the same time."""
    return psycopg.connect(settings.database_url, options="-c timezone=UTC")
