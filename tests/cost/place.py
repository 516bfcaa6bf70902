"""Where costs are counted: servers of the session's stack, emptied, with a tap on each way to them."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import redis

from billing import admin
from billing.connections.redis import connect
from billing.core.clock import Clock
from billing.core.settings import Settings
from billing.credits.buckets import Buckets
from billing.credits.options import options_of
from billing.embedded.stack import Stack
from billing.sinks.stripe.sandbox.control import SandboxControl
from billing.task.runtime import Runtime
from tests.cost.wires import Wires, tapped
from tests.databases import cloned, databases_of, make_migrated

TEMPLATE = "cost_template"
#: A price in credits for each SKU that is sold here.
PRICES = {"page": 5, "extra": 3}


class Place:
    """Empty books with prices, the servers' own URLs, and settings that lead through the taps."""

    def __init__(self, stack: Stack, wires: Wires, database_url: str, broker_url: str) -> None:
        self.stack, self.wires, self.database_url, self.broker_url = stack, wires, database_url, broker_url
        self.redis_url = stack.endpoints.redis_url

    @functools.cached_property
    def buckets(self) -> Buckets:
        """Buckets beside the taps."""
        settings = Settings(redis_url=self.redis_url)
        return Buckets(connect(settings), **options_of(settings))

    def keys(self, **more: Any) -> dict[str, Any]:
        """Return the settings by name; the bounds are longer than any busy machine needs."""
        return {
            "redis_url": self.wires.url("redis"),
            "database_url": self.wires.url("sql"),
            "broker_url": self.wires.url("amqp"),
            "stripe_sandbox_url": self.wires.url("stripe"),
            "redis_timeout_seconds": 60.0,
            "database_timeout_seconds": 60.0,
            "publish_timeout_seconds": 30.0,
            "lease_seconds": 600.0,
            "price_refresh_seconds": 3_600.0,
            **more,
        }

    def settings(self, **more: Any) -> Settings:
        """Return settings that lead through the taps."""
        return Settings(**self.keys(**more))

    @contextmanager
    def runtime(self, clock: Clock | None = None, **more: Any) -> Iterator[Runtime]:
        """Yield a runtime whose every server is behind a tap."""
        settings = self.settings(**more)
        runtime = Runtime(lambda: settings, clock)
        try:
            yield runtime
        finally:
            runtime.close()
            admin.close(settings)


@contextmanager
def place_on(stack: Stack) -> Iterator[Place]:
    """Empty the servers of a stack, and open a database and a virtual host of their own."""
    assert stack.rabbitmq is not None
    name = f"cost-{uuid.uuid4().hex[:12]}"
    with redis.Redis.from_url(stack.endpoints.redis_url) as client:
        client.flushall()
    with SandboxControl(stack.endpoints.stripe_sandbox_url) as control:
        control.reset()
    broker_url = stack.rabbitmq.add_virtual_host(name)
    if TEMPLATE not in databases_of(stack.postgres):
        make_migrated(stack.postgres, TEMPLATE)
    with cloned(stack.postgres, TEMPLATE) as database_url:
        direct = Settings(database_url=database_url, redis_url=stack.endpoints.redis_url)
        for sku, credits_per_unit in PRICES.items():
            admin.set_price(direct, sku, credits_per_unit, "unit")
        admin.close(direct)
        urls = {
            "redis": stack.endpoints.redis_url,
            "sql": database_url,
            "amqp": broker_url,
            "stripe": stack.endpoints.stripe_sandbox_url,
        }
        try:
            with tapped(**urls) as wires:
                yield Place(stack, wires, database_url, broker_url)
        finally:
            stack.rabbitmq.remove_virtual_host(name)
