"""Sends what is planned: each increment is counted at most once at Stripe, and once as soon as Stripe answers (L8).

An attempt is committed before its call and its outcome after it, so that a pusher may die anywhere. One call is in
flight per customer and meter; one client's errors keep no other waiting (L10). Refuses to send again what may have
been forgotten by Stripe.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Engine

from billing.core.clock import Clock
from billing.core.errors import BillingError
from billing.sinks.sink import Answer, MeterSink, Payload, Reply
from billing.sinks.stripe.keys import KeyKind
from billing.sinks.sync import push_statements as sql
from billing.sinks.sync.course import BACKOFF_SECONDS, Course
from billing.sinks.sync.increment import State
from billing.sinks.sync.protocol import AHEAD_MAX, LEASE, RESEND_WITHIN, state_after

#: Calls at once. Each thread has a connection of its own to Stripe; it is the runtime's pool of database connections.
THREADS: Final = 4
#: Bound of one push (L9); what is left is for the next one.
SECONDS: Final = 240.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PushReport:
    """What a push did, in increments. `stopped` says why it ended early, if it did."""

    sent: int = 0
    pending: int = 0
    ambiguous: int = 0
    rejected: int = 0
    #: Taken for lost or for too old to be sent again, before the push began.
    lost: int = 0
    quarantined: int = 0
    #: Whether there may be more than one push sends at most.
    more: bool = False
    stopped: str | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Claim:
    attempt: int
    idempotency_key: str
    doubted: bool
    #: When its lease ends, on both of this process's clocks.
    until: datetime
    until_monotonic: float


class Pusher:
    """Pushes to one meter in the books of one kind of key."""

    def __init__(
        self,
        engine: Engine,
        clock: Clock,
        open_sink: Callable[[], MeterSink],
        *,
        event_name: str,
        books: KeyKind,
        backoff_seconds: float = BACKOFF_SECONDS,
    ) -> None:
        self._engine, self._clock, self._open_sink, self._event_name = engine, clock, open_sink, event_name
        self._books, self._backoff_seconds = books.value, backoff_seconds

    def push(self, *, most: int, seconds: float = SECONDS) -> PushReport:
        """Send at most `most` increments.

        Raises `Fatal`, `Rejected` or `Unreachable` when the sink cannot take any, unless the push has changed something
        already: then its report says both.
        """
        lost, old, found = self._find(most)
        report = PushReport(lost=lost, quarantined=old, more=len(found) == most)
        if not found:
            return report
        sink = self._open_sink()
        try:
            # A wrong meter would refuse every increment for good, or count them wrongly: it is looked at first.
            sink.check(self._event_name)
            where = sink.where
        except BillingError as error:
            if not lost and not old:
                raise
            return dataclasses.replace(report, stopped=str(error))
        finally:
            sink.close()
        course = Course(self._clock, seconds=seconds, where=where, backoff_seconds=self._backoff_seconds)
        states = self._send_all(found, course)
        return dataclasses.replace(
            report,
            sent=states[State.SENT],
            pending=states[State.PENDING],
            ambiguous=states[State.AMBIGUOUS],
            rejected=states[State.REJECTED],
            stopped=course.stopped,
        )

    def _find(self, most: int) -> tuple[int, int, list[Any]]:
        now = self._clock.now()
        with self._engine.begin() as connection:
            longest = now + AHEAD_MAX + LEASE
            lost = connection.execute(sql.FIND_LOST, {"now": now, "longest": longest}).rowcount
            doubt = {"resend_from": now - RESEND_WITHIN, "ahead": now + AHEAD_MAX}
            old = connection.execute(sql.QUARANTINE_OLD, doubt).rowcount
            given = {"event_name": self._event_name, "books": self._books, "most": most, "now": now}
            return lost, old, list(connection.execute(sql.FIND_OPEN, given))

    def _send_all(self, found: list[Any], course: Course) -> Counter[State]:
        """Send in some threads; a customer's increments stay in one of them, one after the other."""
        ordered = sorted(found, key=lambda row: row.client_id)
        queue = deque(list(group) for _, group in itertools.groupby(ordered, key=lambda row: row.client_id))
        states: Counter[State] = Counter()
        lock = threading.Lock()

        def work() -> None:
            sink = self._open_sink()
            try:
                while course.goes_on():
                    try:
                        group = queue.popleft()
                    except IndexError:
                        return
                    for row in group:
                        state = self._send(sink, row, course) if course.goes_on() else None
                        if state is not None:
                            with lock:
                                states[state] += 1
            except BaseException:
                course.stop("an error ended this push")
                raise
            finally:
                sink.close()

        with ThreadPoolExecutor(min(THREADS, len(queue)), thread_name_prefix="billing-push") as pool:
            try:
                for future in [pool.submit(work) for _ in range(min(THREADS, len(queue)))]:
                    future.result()
            except BaseException:
                # Leaving the pool waits for its threads: who is interrupted waits for their present calls only (L9).
                course.stop("an error ended this push")
                raise
        return states

    def _send(self, sink: MeterSink, row: Any, course: Course) -> State | None:
        """Send one increment; None if another pusher has it, or its customer."""
        payload = Payload(
            identifier=row.identifier,
            event_name=row.event_name,
            customer_id=row.customer_id,
            units=row.units,
            event_at=row.event_at,
        )
        for tries in itertools.count(1):
            claim = self._claim(row)
            if claim is None:
                return None
            reply = self._call(sink, payload, claim)
            state = state_after(reply.answer, doubted=claim.doubted)
            self._note(row, claim, reply, state)
            course.note(reply)
            if reply.answer is not Answer.BUSY or not course.wait(tries):
                return state
        return None

    def _claim(self, row: Any) -> _Claim | None:
        now, until_monotonic = self._clock.now(), self._clock.monotonic() + LEASE.total_seconds()
        given = {
            "increment_id": row.increment_id,
            "now": now,
            "lease_until": now + LEASE,
            "resend_from": now - RESEND_WITHIN,
            "ahead": now + AHEAD_MAX,
            "books": self._books,
        }
        with self._engine.begin() as connection:
            if connection.execute(sql.LOCK_CUSTOMER, {"client_id": row.client_id}).one_or_none() is None:
                return None
            found = connection.execute(sql.CLAIM, given).one_or_none()
        if found is None:
            return None
        return _Claim(until=now + LEASE, until_monotonic=until_monotonic, **found._mapping)  # noqa: SLF001 - SQLAlchemy's documented way

    def _call(self, sink: MeterSink, payload: Payload, claim: _Claim) -> Reply:
        # A machine that sleeps stops the monotonic clock, and a set-back clock hides a pause: either may tell.
        if self._clock.monotonic() >= claim.until_monotonic or self._clock.now() >= claim.until:
            # The process was paused: others may have taken the increment over, and Stripe may forget identifiers.
            return Reply(answer=Answer.UNREACHED, reason="not sent: the pusher was paused for longer than its lease")
        return sink.send(payload, idempotency_key=claim.idempotency_key)

    def _note(self, row: Any, claim: _Claim, reply: Reply, state: State) -> None:
        at = {"increment_id": row.increment_id, "attempt": claim.attempt}
        # That a duplicate is there is no reason to look at it: its words are the attempt's.
        reason = "" if state is State.SENT else reply.reason
        with self._engine.begin() as connection:
            connection.execute(sql.NOTE_INCREMENT, {**at, "state": state.value, "reason": reason})
            answered = {"http_status": reply.http_status, "request_id": reply.request_id, "reason": reply.reason}
            noted = {"now": self._clock.now(), "outcome": reply.answer.value}
            connection.execute(sql.NOTE_ATTEMPT, {**at, **answered, **noted})
