"""PostgreSQL that hangs, and does not refuse, holds nobody up who has a young copy of the price book (L9, L10)."""

from __future__ import annotations

import dataclasses
import gc
import threading
import time
from collections.abc import Iterator

import pytest
import sqlalchemy

from billing.connections import postgres
from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.task.runtime import Runtime
from tests.proxy import Proxy, in_front_of
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@pytest.fixture
def door(database: Settings) -> Iterator[tuple[Proxy, Settings]]:
    """Yield a door in front of this test's database, and settings that go through it."""
    with in_front_of(database.database_url) as (proxy, url):
        yield (
            proxy,
            dataclasses.replace(
                database,
                database_url=url,
                price_refresh_seconds=0,
                price_age_max_seconds=600,
                database_timeout_seconds=30,
            ),
        )


def end(proxy: Proxy, runtime: Runtime) -> None:
    """Cut what hangs, and close once the loads that hung on it have given their connections back."""
    proxy.close()
    wait_until(lambda: not any(thread.name == "billing-prices" for thread in threading.enumerate()), "no load goes on")
    runtime.close()
    gc.collect()


def test_given_a_copy_when_postgresql_hangs_then_the_copy_serves_at_once(door: tuple[Proxy, Settings]) -> None:
    """Also on a pooled connection, which was good a moment ago and has no bound of its own on an answer."""
    proxy, settings = door
    runtime = Runtime(lambda: settings)
    first = runtime.prices.get()
    proxy.freeze()
    began = time.monotonic()
    for _ in range(100):
        assert runtime.prices.get().version == first.version
    assert time.monotonic() - began < settings.database_timeout_seconds
    end(proxy, runtime)


def test_given_no_copy_when_postgresql_hangs_then_the_wait_is_bounded(door: tuple[Proxy, Settings]) -> None:
    """The caller gets `Unreachable` after `billing_database_timeout_seconds`, and the next ones at once."""
    proxy, slow = door
    settings = dataclasses.replace(slow, database_timeout_seconds=2)
    runtime = Runtime(lambda: settings)
    with runtime.engine.connect() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))
    proxy.freeze()
    began = time.monotonic()
    for _ in range(100):
        with pytest.raises(Unreachable):
            runtime.prices.get()
    assert settings.database_timeout_seconds <= time.monotonic() - began < 20 * settings.database_timeout_seconds
    end(proxy, runtime)


def test_given_a_connection_then_a_lost_way_to_the_server_is_noticed_within_written_bounds(database: Settings) -> None:
    """L9: the engine bounds its statements, the log's writer does not; both notice a machine that is gone."""
    settings = dataclasses.replace(database, database_timeout_seconds=3)
    engine = postgres.engine(settings)
    with engine.connect() as connection, postgres.connect(settings) as plain:
        assert connection.exec_driver_sql("SHOW statement_timeout").scalar_one() == "1min"
        assert plain.execute("SHOW statement_timeout").fetchone() == ("0",)
        parameters = plain.info.get_parameters()
    engine.dispose()
    kept = {name: parameters[name] for name in parameters if name.startswith(("keepalives", "tcp_user"))}
    assert kept == {
        "tcp_user_timeout": "3000",
        "keepalives": "1",
        "keepalives_idle": "3",
        "keepalives_interval": "1",
        "keepalives_count": "3",
    }
