"""Tries to reserve without end, a client of each shard in turn, and keeps what it was told, and in which epoch.

Its answers tell until when a shard was closed for certain: until it began the last try that was not admitted, before
the first that was. Whatever anybody else was admitted to in that time is a breach of L6.
"""

from __future__ import annotations

import dataclasses
import secrets
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Final

from billing.core.errors import Retryable
from billing.core.ids import new_token, run_id
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.records import read_hold
from billing.credits.values import Hold, ReserveOutcome
from billing.events.usage_event import EventHead, encode_head
from billing.task import outside
from billing.task.runtime import Runtime
from tests.fleet.tasks import SKU

UNREACHABLE: Final = "UNREACHABLE"
#: So that it takes a small part of a core.
_ROUND_SECONDS: Final = 0.2
#: What is left behind where a release met the loss: it expires soon.
_LEASE_SECONDS: Final = 2.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Try:
    """One reserve, in nanoseconds of the machine's monotonic clock; the epoch of the hold, if it was admitted."""

    client_id: str
    shard: int
    began_ns: int
    ended_ns: int
    outcome: str
    epoch: int | None = None

    @property
    def admitted(self) -> bool:
        """Whether work may start."""
        return self.outcome == ReserveOutcome.HELD.value


class Prober(threading.Thread):
    """Reserves a credit for clients that do nothing else, and gives it back."""

    def __init__(self, settings: Settings, client_ids: Sequence[str]) -> None:
        super().__init__(daemon=True)
        self._settings = settings
        self._clients = list(client_ids)
        self._stopped = threading.Event()
        self._between = threading.Lock()
        self.tries: list[Try] = []
        self.error: BaseException | None = None

    def run(self) -> None:
        """Try until told to stop."""
        runtime = Runtime(lambda: self._settings)
        try:
            buckets = runtime.buckets
            assert isinstance(buckets, Buckets)
            while not self._stopped.wait(_ROUND_SECONDS):
                for client_id in list(self._clients):
                    with self._between:
                        if client_id in self._clients:
                            self.tries.append(self._try(buckets, client_id))
        except BaseException as error:  # noqa: BLE001 - the test raises it
            self.error = error
        finally:
            runtime.close()

    @contextmanager
    def held_off(self) -> Iterator[None]:
        """Do something between two tries: each is wholly before or after it."""
        with self._between:
            yield
        self.check()

    @contextmanager
    def also(self, client_id: str) -> Iterator[None]:
        """Try for one client more, for a while."""
        with self._between:
            self._clients = [*self._clients, client_id]
        yield
        with self._between:
            self._clients = self._clients[:-1]

    def check(self) -> None:
        """Raise what has ended it."""
        if self.error is not None:
            raise self.error

    def stop(self) -> None:
        """Stop trying."""
        self._stopped.set()
        self.join(30)

    def _try(self, buckets: Buckets, client_id: str) -> Try:
        hold, shard = _hold(client_id), shard_of(client_id, self._settings.shards)
        began, outcome, epoch = time.monotonic_ns(), UNREACHABLE, None
        try:
            outcome = buckets.reserve(hold).outcome.value
            ended = time.monotonic_ns()
            if outcome == ReserveOutcome.HELD.value:
                name = hold.run_id.hex
                stored = read_hold(name, 0, buckets._scripts.run(("GET", buckets._keys[shard].run + name)))
                epoch = None if stored is None else stored.epoch
                buckets.release(client_id, hold.run_id, hold.token)
        except Retryable:
            ended = time.monotonic_ns()
        return Try(client_id=client_id, shard=shard, began_ns=began, ended_ns=ended, outcome=outcome, epoch=epoch)


def closed_until(tries: Sequence[Try], lost_ns: int) -> Mapping[str, int]:
    """Return until when each client was shut out for certain after a loss; raise where one never was let in again."""
    until: dict[str, int] = {}
    opened: set[str] = set()
    for found in tries:
        if found.began_ns < lost_ns or found.client_id in opened:
            continue
        if found.admitted:
            opened.add(found.client_id)
        else:
            until[found.client_id] = found.began_ns
    assert until.keys() <= opened, f"never open again: {sorted(until.keys() - opened)}"
    return until


def _hold(client_id: str) -> Hold:
    name = secrets.token_hex(8)
    now = int(time.time() * 1_000)
    run = run_id(client_id, name, nesting=0, nonce="", at_milliseconds=now)
    head = EventHead(
        run_id=run,
        client_id=client_id,
        correlation_id=name,
        root_id=name,
        task=outside.TASK,
        attempt=1,
        submitted_at=now,
        price_version=1,
    )
    return Hold(
        run_id=run,
        client_id=client_id,
        sku=SKU,
        credits=1,
        token=new_token(),
        price_version=1,
        attempt=1,
        head=encode_head(head),
        lines=b"",
        lease_seconds=_LEASE_SECONDS,
    )
