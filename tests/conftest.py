"""Fixtures for tests against real servers: one embedded stack per session, started when the first test asks for it.

A server that is not installed skips these tests on a laptop with one line that says so, and fails them under CI=true.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from typing import NoReturn

import hypothesis
import pytest
import redis

from billing.embedded.postgres import Postgres
from billing.embedded.rabbitmq import RabbitMQ
from billing.embedded.server import NotInstalled
from billing.embedded.stack import BROKER_VARIABLE, Stack
from tests.databases import cloned
from tests.fleet.fixtures import fleet, fleet_settings, running_fleet
from tests.shared_stack import borrowed
from tests.stripe_sandbox import stripe_client, stripe_sandbox

# No example fails for being slow, and under CI the examples are the same each time.
hypothesis.settings.register_profile(
    "steady",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[hypothesis.HealthCheck.too_slow],
)
hypothesis.settings.load_profile("steady")

# A shell that starts the tests in the background has SIGINT ignored, nohup SIGHUP; what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

__all__ = ["fleet", "fleet_settings", "running_fleet", "stripe_client", "stripe_sandbox"]


def missing(reason: str) -> NoReturn:
    """Skip on a laptop, fail under CI=true."""
    if os.environ.get("CI", "").lower() in {"1", "true"}:
        pytest.fail(f"under CI nothing may be missing: {reason}")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def stack() -> Iterator[Stack]:
    """Run the session's servers, or borrow those that are lent. `fast`: they survive a server's SIGKILL alone."""
    if (lent := borrowed()) is not None:
        yield lent
        lent.stop()
        return
    try:
        stack = Stack(fast=True)
    except NotInstalled as error:
        missing(str(error))
    with stack:
        yield stack


@pytest.fixture
def rabbitmq(stack: Stack) -> RabbitMQ:
    """Give the session's RabbitMQ, for tests of what the Redis transport cannot do."""
    if stack.rabbitmq is None:
        chosen = (
            f"{BROKER_VARIABLE}={os.environ[BROKER_VARIABLE]}" if BROKER_VARIABLE in os.environ else "not installed"
        )
        missing(f"RabbitMQ: {chosen}")
    return stack.rabbitmq


@pytest.fixture
def redis_url(stack: Stack) -> str:
    """Empty billing's Valkey."""
    with redis.Redis.from_url(stack.endpoints.redis_url) as client:
        client.flushall()
        client.script_flush()
    return stack.endpoints.redis_url


@pytest.fixture
def result_url(stack: Stack) -> str:
    """Empty the result backend's Valkey."""
    with redis.Redis.from_url(stack.endpoints.result_url) as client:
        client.flushall()
    return stack.endpoints.result_url


@pytest.fixture
def broker_url(rabbitmq: RabbitMQ) -> Iterator[str]:
    """Make a virtual host of RabbitMQ for this test alone; making and removing it takes 50 ms."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield rabbitmq.add_virtual_host(name)
    rabbitmq.remove_virtual_host(name)


@pytest.fixture(scope="session")
def postgres_server(stack: Stack) -> Postgres:
    """Give the session's PostgreSQL. A module that overrides it overrides `database_template`, too."""
    return stack.postgres


@pytest.fixture(scope="session")
def database_template() -> str:
    """Name the database that `database_url` clones. Override it with one that holds the schema."""
    return "template0"


@pytest.fixture
def database_url(postgres_server: Postgres, database_template: str) -> Iterator[str]:
    """Clone a database of this test's own from `database_template`; drop it with whoever is still connected."""
    with cloned(postgres_server, database_template) as url:
        yield url
