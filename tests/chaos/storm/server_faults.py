"""What befalls Redis, the result backend, RabbitMQ, PostgreSQL and Stripe's stand-in, as their operators know it."""

from __future__ import annotations

import contextlib
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
import redis

from billing.core.errors import BillingError
from billing.embedded.rabbitmq import RabbitMQ
from billing.embedded.server import Server
from tests.chaos.losing import Losing
from tests.chaos.storm.faults import fault
from tests.chaos.storm.left_out import LeftOut
from tests.chaos.storm.site import SHARDS, Site
from tests.hanging import hanging, kill_node
from tests.integration.test_publishing_faults import disk_alarm, memory_alarm

#: Far above what a server needs on a busy machine.
RESTART_SECONDS: Final = 120.0
_STOP_SECONDS: Final = 10.0
#: Disks are filled, tails cut and servers restarted one at a time on a server.
_BACKENDS: Final = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND usename = %s"
)
#: What Stripe's stand-in does to the next calls, and to how many of them at most.
_STRIPE: Final = (
    "drop",
    "slow",
    "rate_limit",
    "unavailable",
    "error",
    "commit_then_close",
    "commit_then_error",
    "commit_then_hang",
)
_STRIPE_CALLS: Final = 12

#: For the end of a storm, too: only one starts a server at a time.
STARTING: Final = threading.RLock()


def start_again(server: Server) -> None:
    """Start a server that does not run; one that runs is left as it is."""
    with STARTING:
        if not server.running:
            server.restart(timeout_seconds=RESTART_SECONDS)


def _rabbitmq(site: Site) -> RabbitMQ:
    assert site.stack.rabbitmq is not None
    return site.stack.rabbitmq


SERVERS: Final[dict[str, Callable[[Site], Server]]] = {
    "Redis": lambda site: site.stack.valkey,
    "results": lambda site: site.stack.results,
    "RabbitMQ": _rabbitmq,
    "PostgreSQL": lambda site: site.stack.postgres,
    "Stripe": lambda site: site.stack.stripe_sandbox,
}


def _stopped(name: str) -> None:
    @fault(f"{name} stopped")
    @contextmanager
    def stop(site: Site, chance: random.Random) -> Iterator[None]:
        with hanging(SERVERS[name](site).child.child_pid):
            yield


def _ended(kind: str, name: str, end: Callable[[Server], object], behind: Callable[[Site], None] | None = None) -> None:
    """Enter a fault that ends a server, does something to what is left, and starts it again when it is over."""

    @fault(kind)
    @contextmanager
    def befall(site: Site, chance: random.Random) -> Iterator[None]:
        server = SERVERS[name](site)
        with STARTING:
            end(server)
            if behind is not None:
                behind(site)
        try:
            yield
        finally:
            start_again(server)


def _kill_node(server: Server) -> None:
    assert isinstance(server, RabbitMQ)
    try:
        kill_node(server)
    except BillingError:  # busy beyond its bound: it dies all the same
        server.kill()


def _immediately(server: Server) -> None:
    """PostgreSQL's immediate shutdown: no checkpoint, so the next start recovers."""
    server.child.signal(signal.SIGQUIT)
    if server.child.wait(_STOP_SECONDS) is None:
        server.kill()


def _lose_tail(site: Site) -> None:
    with contextlib.suppress(AssertionError):  # the server has lived less than two seconds: nothing to cut
        Losing(site.stack.valkey).last_second()


for _name in SERVERS:
    _stopped(_name)
_ended("Redis killed", "Redis", lambda server: server.kill())
_ended("Redis killed, its tail lost", "Redis", lambda server: server.kill(), _lose_tail)
_ended("results killed", "results", lambda server: server.kill())
_ended("RabbitMQ killed", "RabbitMQ", _kill_node)
_ended("RabbitMQ restarted", "RabbitMQ", lambda server: server.stop())
_ended("PostgreSQL restarted", "PostgreSQL", lambda server: server.stop())
_ended("PostgreSQL restarted at once", "PostgreSQL", _immediately)
_ended("PostgreSQL killed", "PostgreSQL", lambda server: server.kill())
_ended("Stripe killed", "Stripe", lambda server: server.kill())


@fault("Redis emptied")
@contextmanager
def _empty(site: Site, chance: random.Random) -> Iterator[None]:
    Losing(site.stack.valkey).everything()
    yield


@fault("Redis bucket lost")
@contextmanager
def _lose_bucket(site: Site, chance: random.Random) -> Iterator[None]:
    with contextlib.suppress(AssertionError):  # it was lost before, and is not there again
        Losing(site.stack.valkey).bucket(chance.choice(site.client_ids), SHARDS)
    yield


def _full(kind: str, name: str, disk: str) -> None:
    @fault(kind)
    @contextmanager
    def fill(site: Site, chance: random.Random) -> Iterator[None]:
        server = SERVERS[name](site)
        data = site.stack.postgres.data if disk == "postgres" else server.directory / "data"
        if not site.disks.has(disk, data):
            raise LeftOut("no small disk could be mounted")
        with site.disks.full(disk):
            yield
        start_again(server)


_full("Redis disk full", "Redis", "valkey")
_full("PostgreSQL disk full", "PostgreSQL", "postgres")


@fault("RabbitMQ out of memory")
@contextmanager
def _no_memory(site: Site, chance: random.Random) -> Iterator[None]:
    with memory_alarm(_rabbitmq(site)):
        yield


@fault("RabbitMQ out of disk")
@contextmanager
def _no_disk(site: Site, chance: random.Random) -> Iterator[None]:
    with disk_alarm(_rabbitmq(site)):
        yield


@fault("PostgreSQL backends ended")
@contextmanager
def _end_backends(site: Site, chance: random.Random) -> Iterator[None]:
    with psycopg.connect(site.stack.postgres.url_of("postgres"), autocommit=True, connect_timeout=5) as connection:
        connection.execute(_BACKENDS, ["billing"])
    yield


@fault("Stripe fails")
@contextmanager
def _stripe_fails(site: Site, chance: random.Random) -> Iterator[None]:
    """Have each of the next calls for usage fail in a way of its own, half of them after they were taken."""
    site.control.clear_faults()
    for number in range(_STRIPE_CALLS):
        site.control.fault(chance.choice(_STRIPE), path="/v1/billing/meter_events", after=number, seconds=0.5)
    try:
        yield
    finally:
        site.control.clear_faults()


@fault("events published again")
@contextmanager
def _publish_again(site: Site, chance: random.Random) -> Iterator[None]:
    site.duplicates.publish_again(chance)
    yield


def is_redis_whole(site: Site) -> bool:
    """Whether billing's Redis answers, and every shard is trusted on it."""
    try:
        servers = [site.fleet.buckets.server_of(shard) for shard in range(SHARDS)]
    except (BillingError, redis.RedisError):
        return False
    return all(verified == current for verified, current in servers)
