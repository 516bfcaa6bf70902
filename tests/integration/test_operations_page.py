"""docs/operations.md: a fleet is broken in each way of the page, and its commands, typed as they stand, mend it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from billing.embedded.stack import Stack
from tests.documents import DOCS
from tests.operator import Site

pytestmark = [pytest.mark.integration, pytest.mark.slow]

CLIENTS = ("acme", "brook")
#: Short, since the page waits for them: a rebuild takes a third of a lease and all that a call to Redis may take.
BOUNDS = {
    "BILLING_LEASE_SECONDS": "6",
    "BILLING_REDIS_TIMEOUT_SECONDS": "3",
    "BILLING_RECONCILE_WAIT_SECONDS": "2",
    "BILLING_RECONCILE_PASS_SECONDS": "1",
}


class Breaker:
    """What goes wrong at a site, in the words of the page."""

    def __init__(self, site: Site, stack: Stack) -> None:
        self._site, self._stack = site, stack
        self.givens: dict[str, Callable[[], object]] = {
            "the fleet works": self._work,
            "Redis is emptied": lambda: stack.valkey.restart(wipe=True),
            "the fulfillment worker is away and Redis is emptied": self._alone,
            "a fulfillment worker is started": lambda: site.start("consumer"),
            "the consumer hangs while tasks succeed": self._hang,
            "it is killed and another is started": self._replace,
            "RabbitMQ is lost with an event that nobody had consumed": self._lose_events,
            "acme is charged and reported after the dump, and the fleet is stopped": self._report,
            "a search costs 250 and acme buys two": self._misprice,
        }

    def _work(self) -> None:
        self._site.start("consumer", "worker")
        self._site.work("acme")
        self._site.wait_for_rows(1)

    def _alone(self) -> None:
        self._site.stop("consumer")
        self._stack.valkey.restart(wipe=True)

    def _hang(self) -> None:
        os.kill(self._site.child("consumer").child_pid, signal.SIGSTOP)
        self._site.work("acme")

    def _replace(self) -> None:
        self._site.kill("consumer")
        self._site.start("consumer")

    def _lose_events(self) -> None:
        assert self._stack.rabbitmq is not None
        self._site.stop("consumer")
        self._site.work("brook")
        self._site.stop("worker")
        self._stack.rabbitmq.restart(wipe=True)
        self._site.start("consumer", "worker")

    def _report(self) -> None:
        """Report what was used. The dump was made before anything was: it knows nothing of it."""
        for command in ("sync plan", "sync push", "sync confirm"):
            self._site.shell.do(f"billing {command}")
        self._site.stop("consumer", "worker")

    def _misprice(self) -> None:
        self._site.shell.do("billing price set premium-search 250 --unit search")
        self._site.start("worker")
        self._site.work("acme", 2)
        self._site.wait_for("SELECT count(*) FROM usage_history WHERE price_version = 2", 2)


@pytest.fixture
def broken(stack: Stack, wheel_environment: Path, tmp_path: Path) -> Iterator[tuple[Site, Breaker]]:
    """Open a site on servers of its own, which can be lost. The session's only say whether such are installed."""
    if stack.rabbitmq is None:
        pytest.skip("RabbitMQ is not installed")
    with (
        Stack(tmp_path / "servers", fast=True) as own,
        Site(tmp_path, wheel_environment / "bin", {**own.endpoints.environment(), **BOUNDS}) as site,
    ):
        site.shell.do("billing migrate")
        for client_id in CLIENTS:
            site.shell.do(f"billing client add {client_id}")
        site.shell.do("billing price set premium-search 25 --unit search")
        for client_id in CLIENTS:
            site.shell.do(f"billing grant {client_id} 1000 --key welcome-{client_id}")
        site.shell.do("billing stripe setup --price 0.2 --currency eur")
        site.shell.do("billing client link acme --create --subscribe --backdate-hours 2")
        yield site, Breaker(site, own)


@pytest.mark.timeout(900)
def test_what_is_broken_is_mended_as_the_page_says(broken: tuple[Site, Breaker]) -> None:
    """Given each fault of the page, when its commands are typed, they print what it says; the books hold (L2, L3)."""
    site, breaker = broken
    site.shell.follow(DOCS / "operations.md", breaker.givens)
    site.shell.do("billing reconcile --no-stripe")
