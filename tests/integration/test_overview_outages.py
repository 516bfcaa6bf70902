"""A server that is away is seen within a reading or two, hides no other, and comes back by itself (L9, L10)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final

import pytest
import sqlalchemy

from billing.core.errors import InvalidValue
from billing.embedded.server import Server
from billing.embedded.stack import Stack
from billing.integration.configuration import read
from billing.observability.doctor.finding import Verdict
from billing.observability.overview.reading import READ_SECONDS
from billing.observability.overview.values import FleetState
from billing.observability.overview.watch import Watch
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.task.runtime import Runtime
from tests.hanging import hanging
from tests.integration.recovering import Business
from tests.integration.syncing import at_noon
from tests.integration.watching_fleet import FIELDS, declare, is_whole, missing, watching
from tests.proxy import in_front_of
from tests.waiting import wait_until

pytestmark = pytest.mark.integration


@contextmanager
def killed(server: Server) -> Iterator[None]:
    """SIGKILL a server, and start it again on its files."""
    server.kill()
    try:
        yield
    finally:
        server.start()


@contextmanager
def standing_still(server: Server) -> Iterator[None]:
    """SIGSTOP a server with all its processes, and let it go on."""
    with hanging(server.child.child_pid):
        yield


AWAY: Final[dict[str, Callable[[Server], AbstractContextManager[None]]]] = {
    "killed": killed,
    "standing still": standing_still,
}


def server_of(stack: Stack, name: str) -> Server:
    """Return one of the stack's servers."""
    found = {"Redis": stack.valkey, "PostgreSQL": stack.postgres, "broker": stack.rabbitmq}[name]
    if found is None:
        pytest.skip("RabbitMQ is not installed")
    return found


def latest(watch: Watch) -> FleetState:
    """Return the latest reading."""
    found = watch.latest(wait_seconds=60.0)
    assert found is not None
    return found


def reading_threads() -> int:
    """Count the threads that wait for a server."""
    return sum(thread.name.startswith("billing-reads-") for thread in threading.enumerate())


@pytest.mark.parametrize("how", AWAY)
@pytest.mark.parametrize("name", FIELDS)
def test_given_a_server_that_is_away_then_it_alone_is_missing_and_it_comes_back(
    business: Business, stack: Stack, name: str, how: str
) -> None:
    """Its fields are None and a finding says why; the others are read as ever; no threads pile up meanwhile."""
    declare(business)
    others = [other for other in FIELDS if other != name]
    with watching(business) as watch:
        wait_until(lambda: is_whole(latest(watch)), "everything answers")
        with AWAY[how](server_of(stack, name)):
            wait_until(lambda: latest(watch).servers[name] is False, f"{name} is seen to be away")
            wait_until(
                lambda: set(missing(latest(watch))) == set(FIELDS[name]) and missing(latest(watch), *others) == (),
                "its own part is missing, and nothing else",
            )
            state = latest(watch)
            assert [state.servers[other] for other in others] == [True, True]
            assert any(found.part == name and found.verdict is Verdict.FAIL for found in state.findings), state.findings
            readings = watch.readings
            wait_until(lambda: watch.readings > readings + 2, "it is read on")
            assert reading_threads() <= 7
            assert latest(watch).servers == state.servers
        wait_until(lambda: is_whole(latest(watch)), "it is back")
        assert all(latest(watch).servers.values())
        wait_until(
            lambda: (
                not any(
                    found.part == name and found.verdict is Verdict.FAIL and "answer" in found.seen
                    for found in latest(watch).findings
                )
            ),
            "nothing says any more that it does not answer",
        )
    wait_until(lambda: reading_threads() == 0, "every thread has ended")


def test_given_that_stripe_is_away_then_it_is_told_where_increments_wait_for_it(
    engine: sqlalchemy.Engine, business: Business, stripe_sandbox: SandboxControl
) -> None:
    """L8: who never planned an increment, and has no key, is told nothing of a Stripe that is not there."""
    with in_front_of(stripe_sandbox.url) as (proxy, url):
        changes = {"stripe_sandbox_url": url, "stripe_periods": "calendar"}
        with watching(business, **changes) as watch:
            wait_until(lambda: latest(watch).servers.get("Stripe") is True, "Stripe answers")
            proxy.shut()
            wait_until(lambda: "Stripe" not in latest(watch).servers, "it is nobody's loss")
            proxy.reopen()
            at_noon(engine, business.settings, stripe_sandbox).planned("berry", 7)
            wait_until(lambda: latest(watch).servers.get("Stripe") is True, "Stripe answers again")
            proxy.shut()
            wait_until(lambda: latest(watch).servers.get("Stripe") is False, "Stripe is seen to be away")
            assert is_whole(latest(watch))
            assert any(found.part == "Stripe" and found.verdict is Verdict.FAIL for found in latest(watch).findings)
            proxy.reopen()
            wait_until(lambda: latest(watch).servers.get("Stripe") is True, "it is back")


def test_given_wrong_settings_then_a_watch_says_so_and_begins_no_thread() -> None:
    watch = Watch(Runtime(lambda: read({"billing_shards": "none"})))
    with pytest.raises(InvalidValue, match="billing_shards"):
        watch.latest()
    assert watch.age_seconds is None
    watch.close()


def test_given_nobody_who_asks_then_nothing_is_read(business: Business) -> None:
    watch = Watch(business.runtime)
    assert watch.readings == 0
    assert reading_threads() == 0
    watch.close()
    assert watch.latest() is None


def test_a_reading_waits_no_longer_for_a_hanging_server_than_a_page_is_patient_for() -> None:
    assert READ_SECONDS <= 5.0
