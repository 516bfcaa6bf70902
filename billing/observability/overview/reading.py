"""Reads the whole fleet: every server in a part of its own, all at once, so that one that hangs hides no other (L10).

It only reads, writes nothing anywhere, and takes a few seconds at most, however many servers are away (L9). It raises
nothing for what a server does: what did not answer is None, and a finding says why.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from billing.observability.doctor.examine import examine
from billing.observability.doctor.finding import Finding
from billing.observability.liveness.judging import PART as LIVENESS
from billing.observability.liveness.judging import judge
from billing.observability.overview.broker_side import BrokerSide
from billing.observability.overview.log_side import LogSide, LogState, SyncState
from billing.observability.overview.part import Answer, Part
from billing.observability.overview.redis_side import RedisSide, RedisState
from billing.observability.overview.stripe_side import answers
from billing.observability.overview.values import FleetState, Holds, QueueState
from billing.sinks.stripe.keys import KeyKind, key_kind
from billing.sinks.stripe.rates import reads_budget
from billing.task.runtime import Runtime

#: How long a reading waits for the parts that it asked (L9): a busy server answers within, a page is still patient.
READ_SECONDS: Final = 4.0
#: How long one reading that is the only one waits for slow parts, too.
PATIENCE_SECONDS: Final = 15.0
#: How often the doctor looks, and Stripe is asked: a fault is seen within a minute, and Stripe hardly notices.
SLOW_PACE_SECONDS: Final = 30.0


class FleetReader:
    """Reads, again and again. What it opens is its own, and kept; one thread at a time may use it."""

    def __init__(self, runtime: Runtime, app: Any = None, *, slow_pace_seconds: float = SLOW_PACE_SECONDS) -> None:
        """Open nothing yet. Raises `InvalidValue` for wrong settings."""
        settings, clock = runtime.settings, runtime.clock
        self._runtime, self._clock = runtime, clock
        self._redis_side, self._log_side = RedisSide(settings), LogSide(settings, clock)
        self._broker_side = BrokerSide(settings)
        quick, slow = 0.0, slow_pace_seconds
        self._parts = _Parts(
            redis=Part("Redis", self._redis_side.read, clock, quick, slow=False),
            held=Part("Redis", self._redis_side.read_held, clock, quick, slow=True),
            log=Part("PostgreSQL", self._log_side.read, clock, quick, slow=False),
            sync=Part("PostgreSQL", self._log_side.read_sync, clock, slow, slow=True),
            broker=Part("broker", self._broker_side.read, clock, quick, slow=False),
            stripe=Part("Stripe", self._ask_stripe, clock, slow, slow=True),
            doctor=Part("doctor", lambda: examine(runtime, app), clock, slow, slow=True),
        )
        self._with_clients: frozenset[int] | None = None
        self._up: dict[str, bool] = {}
        self._has_increments = False

    def read(self, *, patience_seconds: float = 0.0) -> FleetState:
        """Return how the fleet stands now. Slow parts are waited for so long; else their last answer counts."""
        parts, began = self._parts, self._clock.monotonic()
        for part in parts:
            part.begin()

        def left(seconds: float) -> float:
            return began + seconds - self._clock.monotonic()

        told = _Answers(
            redis=parts.redis.wait(left(READ_SECONDS)),
            log=parts.log.wait(left(READ_SECONDS)),
            broker=parts.broker.wait(left(READ_SECONDS)),
            held=parts.held.wait(left(patience_seconds)),
            sync=parts.sync.wait(left(patience_seconds)),
            stripe=parts.stripe.wait(left(patience_seconds)),
            doctor=parts.doctor.wait(left(patience_seconds)),
        )
        servers = self._servers(told)
        if any(self._up.get(name, state) != state for name, state in servers.items()):
            # What was said of it is of before.
            for part in (parts.doctor, parts.sync, parts.held):
                part.hurry()
        self._up = servers
        if told.log.value is not None and told.log.value.shards_with_clients is not None:
            self._with_clients = told.log.value.shards_with_clients
        return self._state(told)

    def close(self) -> None:
        """Close what was opened, when every part is done or the time of a reading is over.

        A part that hangs keeps its thread until its server answers, or the process ends.
        """
        began = self._clock.monotonic()
        for part in self._parts:
            part.wait(began + READ_SECONDS - self._clock.monotonic())
        self._redis_side.close()
        self._log_side.close()
        self._broker_side.close()

    def _liveness(self, told: _Answers) -> list[Finding] | None:
        """Return what is to be said of who was seen, as of this reading; None: nobody could say."""
        log = told.log.value
        if log is None or log.seen is None:
            return None
        return judge(log.seen, self._runtime.settings.usage_queues, has_charged=log.log_last_at is not None)

    def _ask_stripe(self) -> bool:
        # A database that is away has no turns to give, and one call of this pace is no load.
        budget = reads_budget(self._runtime) if self._up.get("PostgreSQL") else None
        return answers(self._runtime.settings, self._clock, budget)

    def _servers(self, told: _Answers) -> dict[str, bool]:
        """Return which servers answer. Who has no key, and no increment, may not use Stripe at all."""
        asked: dict[str, Answer[Any]] = {
            "Redis": told.redis,
            "PostgreSQL": told.log,
            "broker": told.broker,
            "Stripe": told.stripe,
        }
        servers = {name: answer.up for name, answer in asked.items() if answer.up is not None}
        if told.sync.value is not None:
            self._has_increments = any(one.count for one in told.sync.value.increments)
        used = self._has_increments or key_kind(self._runtime.settings) is not KeyKind.STAND_IN
        if not servers.get("Stripe", True) and not used:
            del servers["Stripe"]
        return servers

    def _state(self, told: _Answers) -> FleetState:
        redis, log = told.redis.value, told.log.value
        sync = told.sync.value if log is not None else None
        recovering = None
        if redis is not None and self._with_clients is not None:
            recovering = len(redis.untrusted & self._with_clients)
        return FleetState(
            taken_at=self._clock.now(),
            findings=_findings(self._up, told, self._liveness(told)),
            servers=self._up,
            outbox=None if redis is None else redis.outbox,
            holds=None if redis is None else _holds(redis, told.held.value),
            recovering_shards=recovering,
            queues=told.broker.value,
            log_read=log is not None and log.log_read,
            **_fields(LogState, log),
            **_fields(SyncState, sync),
        )


class _Parts(NamedTuple):
    redis: Part[RedisState]
    held: Part[tuple[int, bool]]
    log: Part[LogState]
    sync: Part[SyncState]
    broker: Part[tuple[QueueState, ...]]
    stripe: Part[bool]
    doctor: Part[list[Finding]]


class _Answers(NamedTuple):
    redis: Answer[RedisState]
    held: Answer[tuple[int, bool]]
    log: Answer[LogState]
    sync: Answer[SyncState]
    broker: Answer[tuple[QueueState, ...]]
    stripe: Answer[bool]
    doctor: Answer[list[Finding]]


def read_fleet(runtime: Runtime, app: Any = None) -> FleetState:
    """Return how the fleet stands: one reading. It takes as long as the slowest part, at most some seconds."""
    reader = FleetReader(runtime, app)
    try:
        return reader.read(patience_seconds=PATIENCE_SECONDS)
    finally:
        reader.close()


def _holds(own: RedisState, held: tuple[int, bool] | None) -> Holds:
    credits_, whole = (None, False) if held is None else held
    return Holds(count=own.holds, credits=credits_, overdue_seconds=own.overdue_seconds, whole=whole)


def _fields(kind: type[Any], value: Any) -> dict[str, Any]:
    """Return what a part says, by the names of the state; None where it said nothing."""
    names = {field.name for field in dataclasses.fields(kind)} & {
        field.name for field in dataclasses.fields(FleetState)
    }
    return {name: getattr(value, name, None) for name in names - {"findings", "log_read"}}


def _findings(servers: Mapping[str, bool], told: _Answers, liveness: list[Finding] | None) -> tuple[Finding, ...]:
    """Return what was found now, then what the doctor found of those that answer.

    Of who was seen this very reading knows more than the doctor, who may have looked half a minute ago.
    """
    reasons = (answer.finding for answer in told if answer.finding is not None)
    own = [one for one in dict.fromkeys(reasons) if one.part != "Stripe" or "Stripe" in servers]
    refused = () if told.log.value is None else told.log.value.findings
    known = {finding.seen for finding in own}
    found = told.doctor.value or []
    if liveness is not None:
        found = [*liveness, *(one for one in found if one.part != LIVENESS)]
    looked = [one for one in found if servers.get(one.part, True) and one.seen not in known]
    return (*own, *refused, *looked)
