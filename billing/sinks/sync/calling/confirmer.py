"""Confirms what was sent: the sink's own sum of an increment alone shows its units, so it is counted (L8).

It sends no usage. What a look proves is the protocol's; what is counted twice is taken back, once. One customer's
refusal, or one meter's, keeps no other waiting (L10).
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from billing.core.clock import Clock
from billing.core.errors import Rejected, Unreachable
from billing.sinks.sink import MeterSink
from billing.sinks.sync import afterwards, looks
from billing.sinks.sync.calling.budget import Budget, Wait, await_turn
from billing.sinks.sync.calling.meters import check_meters
from billing.sinks.sync.increment import Attempt, Increment, State, attempt_of
from billing.sinks.sync.log import IncrementLog, Open

#: Bounds of one run (L9): at 25 reads a second the time ends first.
MOST: Final = 6_000
SECONDS: Final = 240.0
#: Calls in a row without an answer, after which nobody is taken to listen. Fewer are some customer's own error (L10).
UNANSWERED_MAX: Final = 5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConfirmReport:
    """How many increments were looked at, and what was found out about them."""

    checked: int = 0
    confirmed: int = 0
    #: Newly for a person to look at.
    quarantined: int = 0
    #: Counted twice, and taken back.
    withdrawn: int = 0
    #: A line for each meter whose sums cannot be read: its increments wait, the others went on.
    refused: tuple[str, ...] = ()


class Confirmer:
    """Confirms increments that were sent to the books of one kind of key. `reads`: the fleet's budget of such calls."""

    def __init__(
        self,
        log: IncrementLog,
        clock: Clock,
        open_sink: Callable[[], MeterSink],
        *,
        books: str,
        reads: Budget | None = None,
        wait: Wait = time.sleep,
    ) -> None:
        self._log, self._clock, self._open_sink, self._books = log, clock, open_sink, books
        self._reads, self._wait = reads, wait

    def confirm(self, *, most: int = MOST, seconds: float = SECONDS) -> ConfirmReport:
        """Look at what waits to be confirmed, those first that were looked at longest ago.

        Raises `Unreachable` when nobody answers, `Fatal` when the key is refused or every meter is wrong.
        """
        deadline = self._clock.monotonic() + seconds
        search = Open(books=self._books, now=self._clock.now(), most=most)
        found = self._log.find_unconfirmed(search)
        if not found:
            return ConfirmReport()

        def turn() -> bool:
            return await_turn(self._reads, self._clock, self._wait, lambda: self._clock.monotonic() <= deadline)

        sink = self._open_sink()
        try:
            kept, refused = check_meters(sink, self._log.find_unconfirmed, search, found, turn=turn)
            if refused and not kept:
                raise next(iter(refused.values()))
            report = self._look(sink, kept, turn)
        finally:
            sink.close()
        return dataclasses.replace(report, refused=tuple(str(refused[name]) for name in sorted(refused)))

    def _look(self, sink: MeterSink, found: list[Increment], turn: Callable[[], bool]) -> ConfirmReport:
        report = ConfirmReport()
        unanswered: list[Unreachable] = []
        for increment in found:
            if len(unanswered) == UNANSWERED_MAX or not turn():
                break
            try:
                report = self._check(sink, increment, report, turn)
            except Unreachable as error:
                unanswered.append(error)
                self._log.change(increment.increment_id, lambda locked: looks.unanswered(locked, self._clock.now()))
                continue
            unanswered.clear()
        if unanswered and (len(unanswered) == UNANSWERED_MAX or not report.checked):
            raise unanswered[-1]
        return report

    def _check(
        self, sink: MeterSink, found: Increment, report: ConfirmReport, turn: Callable[[], bool]
    ) -> ConfirmReport:
        """Look at one increment; return the report with it."""
        now = self._clock.now()
        was = found.state
        try:
            shown = self._shown(sink, found)
        except Rejected as error:  # one customer that the sink does not know keeps no other waiting (L10)
            reason = str(error)
            done = self._log.change(
                found.increment_id,
                lambda locked: looks.check_refused(locked, reason, now, payload=found.payload),
            )
            return _counted(report, was, done)
        doubted_by = self._log.doubted_by(found.increment_id) if shown == 0 else None
        done = self._log.change(
            found.increment_id,
            lambda locked: looks.checked(locked, shown, now, payload=found.payload, doubted_by=doubted_by),
        )
        report = _counted(report, was, done)
        if done is not None and looks.counted_twice(done, shown) and turn() and self._withdraw(sink, done, shown):
            report = dataclasses.replace(report, withdrawn=report.withdrawn + 1)
        return report

    def _shown(self, sink: MeterSink, found: Increment) -> int:
        """Return what shows of an increment: in its minute, and wherever an earlier generation of it was sent."""
        shown = sink.shown(found.payload)
        for earlier in self._log.sent_before(found.increment_id) if looks.may_show_twice(found) else ():
            with suppress(Rejected):  # nothing is billed to a customer that the sink does not know any more
                shown += sink.shown(earlier)
        return shown

    def _withdraw(self, sink: MeterSink, found: Increment, shown: int) -> bool:
        """Take the newest generation back; return whether the sink says that it does."""
        claim = self._log.claim(
            found.increment_id, lambda locked: afterwards.withdrawing(locked, shown, self._clock.now())
        )
        if claim is None:
            return False
        reply = sink.withdraw(claim.payload, idempotency_key=claim.idempotency_key)

        def decide(locked: Increment) -> tuple[Increment | None, Attempt | None]:
            now = self._clock.now()
            said = dataclasses.replace(reply, reason=f"withdrawal {reply.reason}".strip())
            return afterwards.withdrawn(locked, claim.attempts, reply, now), attempt_of(claim, said, now)

        self._log.note(claim.increment_id, decide)
        return afterwards.is_taken_back(reply)


def _counted(report: ConfirmReport, was: State, done: Increment | None) -> ConfirmReport:
    state = done.state if done is not None else None
    return dataclasses.replace(
        report,
        checked=report.checked + 1,
        confirmed=report.confirmed + (state is State.CONFIRMED),
        quarantined=report.quarantined + (state is State.QUARANTINED and was is not State.QUARANTINED),
    )
