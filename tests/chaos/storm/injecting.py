"""Carries a plan out: each fault in a thread of its own, from its time on, for as long as it lasts.

What is a stated limit in combination is asked of the servers, too, not of the plan alone: a loss of Redis waits until
nothing old is in its outboxes, and who would forget waits until Redis is rebuilt. Who waits too long is left out.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import random
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from typing import Final

import redis

from billing.core.errors import BillingError
from tests.chaos.storm import network_faults, process_faults
from tests.chaos.storm.faults import FAULTS
from tests.chaos.storm.left_out import LeftOut
from tests.chaos.storm.plan import KINDS, REDIS, Injection
from tests.chaos.storm.server_faults import SERVERS, is_redis_whole, start_again
from tests.chaos.storm.site import SHARDS, Site

network_faults.enter_all(
    (parts[0], parts[1])
    for parts in sorted({tuple(name.split(" ")[0].split("-", 1)) for name in KINDS if " connections " in name})
)
assert KINDS.keys() == process_faults.FAULTS.keys(), KINDS.keys() ^ FAULTS.keys()

#: What waits in an outbox for longer than this has nobody who publishes it now.
_OLD_MS: Final = 2_500
_WAIT_SECONDS: Final = 20.0
_LOOK_SECONDS: Final = 0.2
#: Whose connections to Redis no hold depends on.
_NO_HOLDER: Final = "consumer-"
_LIMIT: Final = "with what still lasts it would be a stated limit"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Done:
    """A fault that was injected, or was not: then `left_out` says why."""

    injection: Injection
    began: float
    ended: float
    left_out: str = ""
    #: How long Redis was not trusted after it had lost something; None: it has not.
    recovered_seconds: float | None = None
    #: From when until when holds could be lost, or not be settled, in milliseconds since the Unix epoch.
    loss: tuple[int, int] | None = None


class Injector:
    """Carries a plan out against a site; `done` is what became of it."""

    def __init__(self, site: Site, plan: Sequence[Injection]) -> None:
        self._site, self._plan = site, plan
        self._stopped = threading.Event()
        self._exclusive = threading.Lock()
        self.done: list[Done] = []
        self.errors: list[str] = []
        self._began = 0.0

    def run(self) -> None:
        """Inject everything; return when the last fault is over."""
        self._began = time.monotonic()
        threads = []
        try:
            for injection in self._plan:
                self._stopped.wait(max(0.0, injection.at - self._now()))
                thread = threading.Thread(target=self._inject, args=(injection,), daemon=True)
                thread.start()
                threads.append(thread)
        finally:
            for thread in threads:
                thread.join()

    def counts(self) -> collections.Counter[str]:
        """Return how many faults of each kind were injected."""
        return collections.Counter(done.injection.kind.name for done in self.done if not done.left_out)

    def left_out(self) -> collections.Counter[str]:
        """Return how many faults were not, by kind and reason."""
        return collections.Counter(
            f"{done.injection.kind.name}: {done.left_out}" for done in self.done if done.left_out
        )

    def losses(self) -> list[tuple[int, int]]:
        """Return from when until when Redis was not there for the workers, or was not trusted."""
        return [done.loss for done in self.done if done.loss is not None]

    def _inject(self, injection: Injection) -> None:
        began, reason, recovered = self._now(), "", None
        struck_ms: int | None = None
        try:
            with contextlib.ExitStack() as stack:
                if injection.kind.loses or injection.kind.forgets:
                    # One at a time of those that must not meet, from the look until it has struck.
                    stack.enter_context(self._alone())
                    self._wait_for_turn(injection)
                began, struck_ms = self._now(), _now_ms()
                fault = FAULTS[injection.kind.name](self._site, random.Random(injection.seed))
                with fault:
                    self._stopped.wait(injection.seconds)
                if injection.kind.of == REDIS and not is_redis_whole(self._site):
                    waited = self._recovered()
                    recovered = waited if injection.kind.loses else None
        except LeftOut as left:
            reason, struck_ms = str(left), None
        except Exception as error:  # noqa: BLE001 - the storm goes on; whoever reads the report must know
            reason = f"{type(error).__name__}: {error}"[:200]
            self.errors.append(f"{injection.kind.name}: {traceback.format_exc()}")
        takes_holds = injection.kind.of == REDIS and not injection.kind.name.startswith(_NO_HOLDER)
        done = Done(
            injection=injection,
            began=began,
            ended=self._now(),
            left_out=reason,
            recovered_seconds=recovered,
            loss=(struck_ms, _now_ms()) if takes_holds and struck_ms is not None else None,
        )
        self.done.append(done)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        if not self._exclusive.acquire(timeout=_WAIT_SECONDS):
            raise LeftOut(_LIMIT)
        try:
            yield
        finally:
            self._exclusive.release()

    def _wait_for_turn(self, injection: Injection) -> None:
        """Wait until a loss of Redis is nobody's only copy, or until Redis is whole again."""
        deadline = time.monotonic() + _WAIT_SECONDS
        while not (self._nothing_waits() if injection.kind.loses else is_redis_whole(self._site)):
            if time.monotonic() > deadline:
                raise LeftOut(_LIMIT)
            self._stopped.wait(_LOOK_SECONDS)

    def _nothing_waits(self) -> bool:
        try:
            waiting = self._site.fleet.buckets.oldest_outbox_ms(range(SHARDS))
        except (BillingError, redis.RedisError):
            return False
        return is_redis_whole(self._site) and all(age < _OLD_MS for _, age in waiting.values())

    def _recovered(self) -> float | None:
        """Wait until every shard is trusted again; None if that takes longer than is watched."""
        began = time.monotonic()
        while time.monotonic() - began < 6 * _WAIT_SECONDS:
            if is_redis_whole(self._site):
                return time.monotonic() - began
            self._stopped.wait(_LOOK_SECONDS)
        return None

    def _now(self) -> float:
        return time.monotonic() - self._began


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


def heal(site: Site) -> None:
    """Have everything be as it should: doors open, servers running, nothing stopped."""
    site.open_doors()
    site.control.clear_faults()
    for server in SERVERS.values():
        start_again(server(site))
