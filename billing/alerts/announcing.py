"""Sends the signals of alerts: claimed in the table, told outside of transactions, noted when every receiver is done.

At least once: a worker that dies on the way leaves a claim that runs out, and the signal is sent again with the same
alert id. A worker tells one alert per client at a time, so that a client's come in their order, and neither a client
for whom a receiver hangs nor a receiver that hangs for all delays the others (L10).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import logging
import time
from collections.abc import Mapping
from concurrent.futures import Future
from datetime import timedelta
from typing import Any, Final

from billing.alerts.alert import Alert
from billing.alerts.receivers import CALL_SECONDS_MAX, CALLS_MAX, Receiver, Room, receivers
from billing.alerts.signals import signal_of
from billing.alerts.statements import ANNOUNCED, ANNOUNCING
from billing.connections import postgres
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: What a claim lasts: a call that hangs, and its note.
CLAIM: Final = timedelta(seconds=CALL_SECONDS_MAX + 5)
#: Rounds that one pass makes (L9): a client's alerts come one after the other.
_ROUNDS_MAX: Final = 200


@dataclasses.dataclass(kw_only=True, slots=True, eq=False)
class _Telling:
    """An alert under way: whom it is still to be told, and whose call has not ended."""

    alert: Alert
    named: Mapping[str, Any]
    began: float
    waiting: list[Receiver]
    calls: list[Future[None]] = dataclasses.field(default_factory=list)

    @property
    def done(self) -> bool:
        return not self.waiting and all(call.done() for call in self.calls)


class Announcer:
    """The signals of one worker. `step` never waits for a receiver."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._under_way: list[_Telling] = []
        #: Alerts that were told, ever.
        self.told = 0

    def step(self) -> int:
        """Note what has been told, and tell what waits; return how many are under way."""
        self._note()
        for telling in self._under_way:
            self._call(telling)
        self._begin()
        return len(self._under_way)

    def finish(self, seconds: float = CALL_SECONDS_MAX) -> None:
        """Wait for the calls under way, at most so long, and note what has been told."""
        concurrent.futures.wait([call for telling in self._under_way for call in telling.calls], timeout=seconds)
        self._note()

    def give_up(self) -> None:
        """Wait for nothing any more: what hangs counts as told."""
        self._note(hanging=True)

    def _note(self, *, hanging: bool = False) -> None:
        now, ended = self._runtime.clock.monotonic(), []
        for telling in self._under_way:
            if telling.done:
                ended.append(telling)
            elif hanging or telling.began + CALL_SECONDS_MAX <= now:
                logger.error("billing: a receiver of alert %d hangs; it is not waited for", telling.alert.alert_id)
                ended.append(telling)
        if not ended:
            return
        given = {"now": self._runtime.clock.now(), "alerts": [telling.alert.alert_id for telling in ended]}
        with postgres.reaching(self._runtime.settings), self._runtime.engine.begin() as connection:
            connection.execute(ANNOUNCED, given)
        # Only now: while PostgreSQL is away they are kept.
        self._under_way = [telling for telling in self._under_way if telling not in ended]
        self.told += len(ended)

    def _begin(self) -> None:
        runtime, now = self._runtime, self._runtime.clock.now()
        given = {
            "now": now,
            "claimed_until": now + CLAIM,
            "busy": [telling.alert.client_id for telling in self._under_way],
            "count": CALLS_MAX - len(self._under_way),
        }
        with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
            claimed = [Alert(**row) for row in connection.execute(ANNOUNCING, given).mappings()]
        for alert in sorted(claimed, key=lambda alert: alert.alert_id):
            signal, named = signal_of(alert)
            telling = _Telling(
                alert=alert,
                named={"signal": signal, "sender": None, **named},
                began=runtime.clock.monotonic(),
                # `send` would call one after the other, and each would wait for those before it.
                waiting=list(signal._live_receivers(None)),  # type: ignore[attr-defined]  # noqa: SLF001 - no other way to them
            )
            self._under_way.append(telling)
            self._call(telling)

    def _call(self, telling: _Telling) -> None:
        """Begin the calls that there is room for."""
        waiting, telling.waiting = telling.waiting, []
        for receiver in waiting:
            call = receivers().call(receiver, telling.named, self._runtime.clock.monotonic())
            if call is Room.BUSY:
                telling.waiting.append(receiver)
            elif isinstance(call, Room):
                alert = telling.alert.alert_id
                logger.error("billing: %d calls of %r hang: it is not told of alert %d", CALLS_MAX, receiver, alert)
            else:
                telling.calls.append(call)


def announce(runtime: Runtime, *, seconds: float = CALL_SECONDS_MAX) -> int:
    """Send the signals that wait, in one pass of about so long at most; return how many.

    What another worker has begun is left to it. A call that is still under way at the end counts as made.
    """
    announcer, until = Announcer(runtime), time.monotonic() + seconds
    for _ in range(_ROUNDS_MAX):
        left = until - time.monotonic()
        if left <= 0 or not announcer.step():
            break
        announcer.finish(left)
    announcer.give_up()
    return announcer.told
