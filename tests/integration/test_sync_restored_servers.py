"""A server that is promoted, moved back, or asked by a person: what is noticed, what is not, and what is said of it."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from billing import admin
from billing.core.errors import Fatal
from billing.core.settings import Settings
from billing.embedded.postgres import Postgres
from billing.schema.migrate import migrate
from billing.sinks.stripe import restored
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.sinks.sync.restored.adopting import Adopter
from tests.integration.restoring import Restoring, restoring_of
from tests.terminal import Terminal
from tests.waiting import wait_until

pytestmark = pytest.mark.integration

REASON = "restored from a dump"
NOW = timedelta()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Postgres]:
    """Start a server of this test's own, which it may stop, copy and promote."""
    own = Postgres(tmp_path / "server", fast=True)
    own.start()
    yield own
    own.stop()


@pytest.fixture
def site(server: Postgres, redis_url: str, stripe_sandbox: SandboxControl, tmp_path: Path) -> Iterator[Restoring]:
    settings = Settings(database_url=server.url, database_timeout_seconds=60.0, redis_url=redis_url)
    migrate(settings)
    with restoring_of(settings, stripe_sandbox, tmp_path) as found:
        yield found


def test_given_a_standby_that_took_over_when_reported_then_nobody_is_accused_but_of_a_lost_tail(
    site: Restoring, server: Postgres, tmp_path: Path
) -> None:
    """A new timeline alone is no alarm; the directory as it was before a call is one (L8)."""
    customer = site.client("acme")
    site.use("acme", 50)
    site.report()
    admin.close(site.settings)
    server.stop()
    (server.data / "standby.signal").touch()
    server.start()
    with psycopg.connect(server.url, autocommit=True) as connection:
        assert connection.execute("SELECT pg_promote(), timeline_id FROM pg_control_checkpoint()").fetchone()
        wait_until(lambda: connection.execute("SELECT pg_is_in_recovery()").fetchone() == (False,), "it took over")
    site.use("acme", 30)
    site.report()
    assert (site.told(customer), site.states()) == (80, {"confirmed": 80})

    admin.close(site.settings)
    server.stop()
    _copy(server.data, tmp_path / "copy")
    server.start()
    site.use("acme", 20)
    site.report()
    admin.close(site.settings)
    server.stop()
    shutil.rmtree(server.data)
    _copy(tmp_path / "copy", server.data)
    server.start()
    site.use("acme", 25)
    with pytest.raises(Fatal, match="it lacks 1 of the latest 3 calls"):
        admin.sync_plan(site.settings)
    assert admin.sync_adopt(site.settings, None, REASON, lag=NOW).places[0].adopted == 20
    site.report()
    assert (site.told(customer), site.states()) == (105, {"confirmed": 105})
    assert admin.sync_reconcile(site.settings).ok


def _copy(source: Path, target: Path) -> None:
    """Copy a server's directory, with its owner."""
    subprocess.run(["cp", "-a", str(source), str(target)], check=True, timeout=60)


class Ended(Exception):
    """The process ended here."""


@pytest.mark.parametrize("point", ["_take", "_confirm", "trust"])
def test_given_an_adoption_that_ends_anywhere_when_it_is_made_again_then_nothing_is_adopted_twice(
    database: Settings,
    redis_url: str,
    stripe_sandbox: SandboxControl,
    tmp_path: Path,
    point: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Given two clients, when it ends after each of its steps, the same again comes to the same sums (L8)."""
    settings = dataclasses.replace(
        database, redis_url=redis_url, stripe_sandbox_url=stripe_sandbox.url, stripe_periods="calendar"
    )
    with Gateway(settings) as gateway:
        gateway.setup()
    site = Restoring(settings=settings, stripe=stripe_sandbox, directory=tmp_path)
    customers = [site.client(client_id) for client_id in ("acme", "other")]
    site.use("acme", 50)
    admin.sync_plan(settings)
    site.use("acme", 10)
    site.use("other", 40)
    copy = site.copy()
    site.report()
    site.put_back(copy)
    site.drop(copy)
    owner: object = restored if point == "trust" else Adopter
    with monkeypatch.context() as patched:
        was = getattr(owner, point)

        def ends(*given: object, **named: object) -> None:
            was(*given, **named)
            raise Ended

        patched.setattr(owner, point, ends)
        with pytest.raises(Ended):
            admin.sync_adopt(settings, None, REASON, lag=NOW)
    if point != "trust":
        with pytest.raises(Fatal):
            admin.sync_push(settings)

    admin.sync_adopt(settings, None, REASON, lag=NOW)
    site.use("acme", 7)
    site.report()
    assert [site.told(customer) for customer in customers] == [67, 40]
    assert site.states() == {"confirmed": 107}
    assert admin.sync_reconcile(settings).ok
    admin.close(settings)


def test_given_a_restored_dump_when_a_person_asks_then_doctor_and_the_commands_say_what_to_do(
    database: Settings, shop: Terminal, stripe_sandbox: SandboxControl, tmp_path: Path
) -> None:
    """One line each: no traceback, exit codes as everywhere."""
    settings = dataclasses.replace(
        database,
        redis_url=shop.environment["BILLING_REDIS_URL"],
        stripe_sandbox_url=stripe_sandbox.url,
        stripe_periods="calendar",
    )
    shop.environment.update(BILLING_STRIPE_SANDBOX_URL=stripe_sandbox.url, BILLING_STRIPE_PERIODS="calendar")
    with Gateway(settings) as gateway:
        gateway.setup()
    site = Restoring(settings=settings, stripe=stripe_sandbox, directory=tmp_path)
    site.client("brook")
    site.use("brook", 50)
    dump = site.dump()
    site.report()
    site.restore(dump)
    adopting = ("sync", "adopt", "--reason", REASON)

    shop.type("sync", "push").refused(1, "of an earlier moment than Stripe was told from: it lacks 1 of the latest 1")
    assert "billing sync adopt --all" in shop.type("doctor", "--json").out
    shop.type(*adopting).refused(2, "name one client, or say --all")
    shop.type(*adopting, "--all").refused(2, "adopt after", "UTC, or name a shorter --lag-hours")
    one = shop.type(*adopting, "brook", "--lag-hours", "0")
    assert (one.code, one.err) == (0, "")
    assert "Stripe has 50 units, 0 were known; 0 confirmed, 50 adopted, 0 left" in one.out
    assert one.out.endswith("nothing is sent before all are adopted: billing sync adopt --all --reason …\n")
    every = shop.type(*adopting, "--all", "--lag-hours", "0", "--json").json()
    assert (every["places"], every["is_trusted"]) == ([], True)
    assert shop.type("sync", "push").code == 0
    assert REASON in shop.type("sync", "show", "1").out
    admin.close(settings)
