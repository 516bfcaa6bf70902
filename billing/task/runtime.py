"""What a process needs to bill: settings, buckets, prices, publisher. One per app; connections are made when used.

Nothing connects when a runtime is made, and what is made is made once per process and again after a fork. What speaks
to PostgreSQL is imported when it is first asked: who only submits tasks need not wait for it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from billing.catalog.price_book import PriceBook
from billing.catalog.price_cache import PriceCache
from billing.connections import redis as redis_connection
from billing.connections.per_process import PerProcess
from billing.core.clock import Clock, SystemClock
from billing.core.lately import Lately
from billing.core.settings import Settings
from billing.credits.buckets import Buckets
from billing.credits.options import options_of
from billing.credits.verbs import Verbs
from billing.events.publisher import Publisher
from billing.task.coming_back import ComingBack
from billing.task.questions import Questions
from billing.task.wait_queues import WaitQueues

if TYPE_CHECKING:
    import sqlalchemy

    from billing.task.observer import Observer
    from billing.task.records import Records

#: How long a server that did not answer an early question is not asked another one (L9).
_UNANSWERED_SECONDS: Final = 5.0


class Runtime:
    """The services of one app under one set of settings."""

    #: Who counts what this process bills, in a worker that serves metrics.
    observer: Observer | None = None

    def __init__(self, read_settings: Callable[[], Settings], clock: Clock | None = None) -> None:
        self._read_settings = read_settings
        self.clock = clock or SystemClock()
        self.coming_back = ComingBack(self.clock)
        self.unanswered = Lately(self.clock, seconds=_UNANSWERED_SECONDS, count=1)
        self._engine = PerProcess(self._make_engine)
        self._redis = PerProcess(lambda: redis_connection.connect(self.settings))
        self._buckets = PerProcess(self._make_buckets)
        self._prices = PerProcess(self._make_prices)
        self._publisher = PerProcess(lambda: Publisher(self.settings))
        self._wait_queues = PerProcess(lambda: WaitQueues(self.settings))
        self._questions = PerProcess(lambda: Questions(self.clock))

    @functools.cached_property
    def settings(self) -> Settings:
        """The settings, read at first use (a Celery configuration is lazy). Raises `InvalidValue`."""
        return self._read_settings()

    @functools.cached_property
    def looked(self) -> Lately:
        """The clients whose corrupt bucket this process has looked at lately."""
        from billing.ledger.corruptions import LOOK_AGAIN_SECONDS, LOOKED_MAX  # noqa: PLC0415 - with PostgreSQL

        return Lately(self.clock, seconds=LOOK_AGAIN_SECONDS, count=LOOKED_MAX)

    @property
    def engine(self) -> sqlalchemy.Engine:
        """SQLAlchemy's engine on the billing database."""
        return self._engine.get()

    @property
    def redis(self) -> redis_connection.Client:
        """The client of billing's own Redis."""
        return self._redis.get()

    @property
    def buckets(self) -> Verbs:
        """The credit buckets: in Redis, or in memory under test."""
        return self._buckets.get()

    @property
    def records(self) -> Records:
        """What runs ask of PostgreSQL."""
        from billing.task.records import StoredRecords  # noqa: PLC0415 - with PostgreSQL

        return StoredRecords(self)

    @property
    def questions(self) -> Questions:
        """What asks PostgreSQL for whoever cannot wait for it without a bound."""
        return self._questions.get()

    @property
    def prices(self) -> PriceCache:
        """The price book, renewed every `billing_price_refresh_seconds`."""
        return self._prices.get()

    @property
    def publisher(self) -> Publisher:
        """The confirmed publisher of usage events."""
        return self._publisher.get()

    @property
    def wait_queues(self) -> WaitQueues:
        """What has deliveries that were put off wait in the broker."""
        return self._wait_queues.get()

    def close(self) -> None:
        """Close what this process has made; it is made again when it is used again."""
        if self._engine.made is not None:
            self._engine.made.dispose()
        if self._redis.made is not None:
            self._redis.made.close()
        if self._publisher.made is not None:
            self._publisher.made.close()
        if self._wait_queues.made is not None:
            self._wait_queues.made.close()
        for holder in (
            *(self._engine, self._redis, self._buckets, self._prices),
            *(self._publisher, self._questions, self._wait_queues),
        ):
            holder.forget()

    def _make_engine(self) -> sqlalchemy.Engine:
        from billing.connections import postgres  # noqa: PLC0415 - with PostgreSQL

        return postgres.engine(self.settings)

    def _make_buckets(self) -> Buckets:
        return Buckets(self._redis.get(), **options_of(self.settings))

    def _make_prices(self) -> PriceCache:
        def load() -> PriceBook:
            from billing.catalog.price_source import read_price_book  # noqa: PLC0415 - with PostgreSQL

            return read_price_book(self.settings)

        return PriceCache(
            load,
            refresh_seconds=self.settings.price_refresh_seconds,
            age_max_seconds=self.settings.price_age_max_seconds,
            wait_seconds=self.settings.database_timeout_seconds,
            clock=self.clock,
        )
