"""All servers that a billed fleet needs, together: two Valkeys, PostgreSQL, RabbitMQ if installed, Stripe's stand-in.

Guarantee: `start` returns when every server answers, or leaves none running; after `stop`, and after any end of this
process, none is left. A directory makes the data persistent, none makes them temporary. Without RabbitMQ the broker is
Valkey, whose weaker promises kombu's Redis transport states.
"""

from __future__ import annotations

import concurrent.futures
import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self, get_args

from billing.core.errors import Fatal, InvalidValue
from billing.embedded.endpoints import Endpoints
from billing.embedded.place import Place
from billing.embedded.postgres import Postgres
from billing.embedded.rabbitmq import RabbitMQ
from billing.embedded.rabbitmq import programs as rabbitmq_programs
from billing.embedded.server import NotInstalled, Server
from billing.embedded.stripe_sandbox import StripeSandbox
from billing.embedded.valkey import Valkey

Broker = Literal["auto", "rabbitmq", "redis"]
BROKER_VARIABLE: Final = "BILLING_EMBEDDED_BROKER"


class Stack:
    """The servers: `valkey` is billing's, `results` the result backend, `rabbitmq` None where Valkey is the broker."""

    def __init__(self, directory: Path | None = None, *, broker: Broker = "auto", fast: bool = False) -> None:
        rabbitmq_wanted = _wants_rabbitmq(broker)
        self._cancelled = threading.Event()
        self._endpoints: Endpoints | None = None
        self._place = Place(directory)
        base, hold, cancelled = self._place.directory, (self._place.descriptor,), self._cancelled
        self.valkey = Valkey(base / "valkey", fast=fast, hold=hold, cancelled=cancelled)
        self.results = Valkey(base / "results", fast=fast, hold=hold, cancelled=cancelled)
        self.postgres = Postgres(base / "postgres", fast=fast, hold=hold, cancelled=cancelled)
        self.stripe_sandbox = StripeSandbox(base / "stripe", fast=fast, hold=hold, cancelled=cancelled)
        self.rabbitmq = (
            RabbitMQ(base / "rabbitmq", fast=fast, hold=hold, cancelled=cancelled) if rabbitmq_wanted else None
        )

    @property
    def directory(self) -> Path:
        """Where the servers keep their data, logs and passwords."""
        return self._place.directory

    @property
    def servers(self) -> tuple[Server, ...]:
        """Every server of this stack."""
        return (
            self.valkey,
            self.results,
            self.postgres,
            self.stripe_sandbox,
            *([self.rabbitmq] if self.rabbitmq else []),
        )

    @property
    def endpoints(self) -> Endpoints:
        """Where the servers are; `Fatal` before the start."""
        if self._endpoints is None:
            raise Fatal("the embedded stack is not running")
        return self._endpoints

    def start(self) -> Endpoints:
        """Start all servers at once; on any failure or interruption stop them all and raise."""
        try:
            with concurrent.futures.ThreadPoolExecutor(
                max_workers=len(self.servers), thread_name_prefix="start"
            ) as pool:
                starts = [pool.submit(server.start) for server in self.servers]
                try:
                    for start in concurrent.futures.as_completed(starts):
                        start.result()
                except BaseException:
                    self._cancelled.set()  # the others give up at once, so that leaving the pool does not wait for them
                    raise
        except BaseException:
            self.stop()
            raise
        broker_url = self.rabbitmq.url if self.rabbitmq else self.results.url_of(1)
        self._endpoints = Endpoints(
            redis_url=self.valkey.url,
            database_url=self.postgres.url,
            broker_url=broker_url,
            result_url=self.results.url,
            stripe_sandbox_url=self.stripe_sandbox.url,
        )
        return self._endpoints

    def stop(self) -> None:
        """Stop all servers at once, kill the late ones, remove what is temporary. Safe to repeat."""
        self._cancelled.set()
        try:
            with concurrent.futures.ThreadPoolExecutor(
                max_workers=len(self.servers), thread_name_prefix="embedded-stop"
            ) as pool:
                for stopped in [pool.submit(server.stop) for server in self.servers]:
                    stopped.result()
        finally:
            self._endpoints = None
            if self._place.temporary:
                self.postgres.remove()
            self._place.close()

    def describe(self) -> str:
        """One line per server, without passwords."""
        return self.endpoints.describe()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def _wants_rabbitmq(broker: Broker) -> bool:
    """Decide on the broker; `$BILLING_EMBEDDED_BROKER` wins over the argument."""
    choice = os.environ.get(BROKER_VARIABLE) or broker
    if choice not in get_args(Broker):
        raise InvalidValue(BROKER_VARIABLE, choice, f"must be one of: {', '.join(get_args(Broker))}")
    if choice == "redis":
        return False
    try:
        rabbitmq_programs()
    except NotInstalled:
        if choice == "rabbitmq":
            raise
        return False
    return True
