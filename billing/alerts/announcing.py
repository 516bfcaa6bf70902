"""Sends the signals of alerts: claimed in the table, told outside of transactions, noted when every receiver is done.

At least once: a worker that dies on the way, or has no place for a call, leaves a claim that runs out, and the signal
is sent again with the same alert id. A worker tells one alert per client at a time, so that a client's come in their
order, and neither a client for whom a receiver hangs nor a receiver that hangs for all delays the others (L10).
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
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
    """An alert under way: whom it is still to be told, whose call has not ended, and when the last one began."""

    alert: Alert
    named: Mapping[str, Any]
    began: float
    called: float
    waiting: list[Receiver]
    calls: list[Future[None]] = dataclasses.field(default_factory=list)

    @property
    def runs(self) -> bool:
        return any(not call.done() for call in self.calls)

    @property
    def done(self) -> bool:
        return not self.waiting and not self.runs


class Announcer:
    """The signals of one worker. `step` never waits for a receiver."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._under_way: list[_Telling] = []
        #: Alerts that were told, ever.
        self.told = 0

    def step(self) -> int:
        """Note what has been told, and tell what waits; return how many are under way."""
        now = self._runtime.clock.monotonic()
        for telling in self._under_way:
            self._call(telling, now)
        self._note()
        self._begin()
        return len(self._under_way)

    @property
    def stuck(self) -> bool:
        """Whether there is nothing to wait for: every place is taken by calls of somebody else's."""
        return not any(telling.done or telling.runs for telling in self._under_way)

    def finish(self, seconds: float = CALL_SECONDS_MAX) -> None:
        """Wait for the calls under way, at most so long, and note what has been told."""
        concurrent.futures.wait([call for telling in self._under_way for call in telling.calls], timeout=seconds)
        self._note()

    def give_up(self) -> None:
        """Note what has been told, and wait for nothing any more."""
        self._note()
        for telling in self._under_way:
            self._leave(telling)
        self._under_way = []

    def _note(self) -> None:
        """Note what has been told. A call counts as made when it has ended, or has lasted `CALL_SECONDS_MAX`."""
        over, ended, left = self._runtime.clock.monotonic() - CALL_SECONDS_MAX, [], []
        for telling in self._under_way:
            if telling.done:
                ended.append(telling)
            elif telling.called <= over and not telling.waiting:
                logger.error("billing: a receiver of alert %d hangs; it is not waited for", telling.alert.alert_id)
                ended.append(telling)
            elif telling.began <= over:
                left.append(telling)
        for telling in left:
            self._under_way.remove(telling)
            self._leave(telling)
        if not ended:
            return
        self._write([telling.alert.alert_id for telling in ended])
        # Only now: while PostgreSQL is away they are kept.
        self._under_way = [telling for telling in self._under_way if telling not in ended]
        self.told += len(ended)

    def _leave(self, telling: _Telling) -> None:
        """Leave it to its claim: told again when that has run out, unless the end of its calls is noted before."""
        if telling.waiting:
            logger.warning("billing: alert %d is told again: no place was free for a call", telling.alert.alert_id)
            return
        for call in telling.calls:
            call.add_done_callback(functools.partial(self._note_late, telling))

    def _note_late(self, telling: _Telling, _: Future[None]) -> None:
        if telling.done:
            try:
                self._write([telling.alert.alert_id])
            except Exception as error:  # noqa: BLE001 - in the thread of a call, which nobody hears
                logger.warning("billing: alert %d was told, and is told again: %s", telling.alert.alert_id, error)

    def _write(self, alerts: list[int]) -> None:
        given = {"now": self._runtime.clock.now(), "alerts": alerts}
        with postgres.reaching(self._runtime.settings), self._runtime.engine.begin() as connection:
            kinds = connection.execute(ANNOUNCED, given).scalars().all()
        if self._runtime.observer is not None:
            for kind in kinds:
                self._runtime.observer.alerted(kind)

    def _begin(self) -> None:
        runtime, now, began = self._runtime, self._runtime.clock.now(), self._runtime.clock.monotonic()
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
                began=began,
                called=began,
                # `send` would call one after the other, and each would wait for those before it.
                waiting=list(signal._live_receivers(None)),  # type: ignore[attr-defined]  # noqa: SLF001 - no other way to them
            )
            self._under_way.append(telling)
            self._call(telling, began)

    def _call(self, telling: _Telling, now: float) -> None:
        """Begin the calls that there is room for."""
        waiting, telling.waiting = telling.waiting, []
        for receiver in waiting:
            call = receivers().call(receiver, telling.named, now)
            if call is Room.BUSY:
                telling.waiting.append(receiver)
            elif isinstance(call, Room):
                alert = telling.alert.alert_id
                logger.error("billing: %d calls of %r hang: it is not told of alert %d", CALLS_MAX, receiver, alert)
            else:
                telling.calls.append(call)
                telling.called = now


def announce(runtime: Runtime, *, seconds: float = CALL_SECONDS_MAX) -> int:
    """Send the signals that wait, in one pass of about so long at most; return how many.

    What another worker has begun is left to it. What could not be called, or whose call is still under way at the end,
    is not noted: a call's own thread notes its end, and who has not been told when the claim runs out is told again.
    """
    announcer, until = Announcer(runtime), time.monotonic() + seconds
    for _ in range(_ROUNDS_MAX):
        left = until - time.monotonic()
        if left <= 0 or not announcer.step() or announcer.stuck:
            break
        announcer.finish(left)
    announcer.give_up()
    return announcer.told
