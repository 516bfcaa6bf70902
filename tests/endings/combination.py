"""What a matrix of endings is run on: a version of Celery, a pool, a broker."""

from __future__ import annotations

import dataclasses
from typing import Final, Literal, get_args

import celery

Version = Literal["5.7", "5.6"]
Pool = Literal["prefork", "threads", "solo", "gevent"]
Broker = Literal["RabbitMQ", "Redis"]

VERSIONS: Final[tuple[Version, ...]] = get_args(Version)
POOLS: Final[tuple[Pool, ...]] = get_args(Pool)
BROKERS: Final[tuple[Broker, ...]] = get_args(Broker)
#: The pool on which the core set runs over the Redis transport.
REDIS_POOL: Final[Pool] = "prefork"


@dataclasses.dataclass(frozen=True, kw_only=True, order=True)
class Combination:
    """One place where cells run."""

    version: Version
    pool: Pool
    broker: Broker

    def __str__(self) -> str:
        """Return how reports name it."""
        return f"Celery {self.version}, {self.pool}, {self.broker}"

    @property
    def forks(self) -> bool:
        """Whether a run has a process of its own below the worker's."""
        return self.pool == "prefork"

    @property
    def sees_exits(self) -> bool:
        """Whether a worker is told that a run has called `sys.exit`."""
        return self.forks and self.version == "5.7"

    @property
    def loses_events(self) -> bool:
        """Whether the worker may lose events: 5.6 forgets what other threads add while it sends; 5.7 mends it."""
        return self.version == "5.6" and self.pool in ("threads", "gevent")

    @property
    def outlives_broker(self) -> bool:
        """Whether a worker goes on when its connection is lost while a task runs."""
        return not (self.version == "5.6" and self.pool == "threads")

    @property
    def cancels(self) -> bool:
        """Whether the worker can end a run that goes on."""
        return self.pool in ("prefork", "gevent")

    @property
    def parallel(self) -> bool:
        """Whether a worker has several runs at a time, and hears remote control while one goes on."""
        return self.pool != "solo"


#: What the document's columns show; the other combinations stand in its notes where they differ.
BASE: Final = Combination(version="5.7", pool="prefork", broker="RabbitMQ")


def all_combinations() -> tuple[Combination, ...]:
    """Return where a full run has cells: every pool on RabbitMQ, one pool on Redis, for each version."""
    return tuple(
        Combination(version=version, pool=pool, broker=broker)
        for version in VERSIONS
        for broker in BROKERS
        for pool in POOLS
        if broker == "RabbitMQ" or pool == REDIS_POOL
    )


def installed_version() -> str:
    """Return the version of Celery that this interpreter has."""
    return ".".join(celery.__version__.split(".")[:2])
