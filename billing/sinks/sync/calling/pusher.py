"""Sends what is planned: each increment is counted at most once at the sink, and once as soon as it answers (L8).

An attempt is on record before its call and its outcome after it, so that a pusher may die anywhere. One call is in
flight per customer and meter; one client's errors, and one meter's, keep no other waiting (L10). What may be sent, and
what an answer means, is the protocol's.
"""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections import Counter
from collections.abc import Callable
from typing import Final

from billing.core.clock import Clock
from billing.core.errors import BillingError, Unreachable
from billing.sinks.sink import Answer, MeterSink, Reply
from billing.sinks.sync import protocol
from billing.sinks.sync.calling.budget import Budget, Wait
from billing.sinks.sync.calling.course import BACKOFF_SECONDS, Course
from billing.sinks.sync.calling.meters import check_meters
from billing.sinks.sync.calling.threads import in_threads
from billing.sinks.sync.increment import Attempt, Increment, State, attempt_of
from billing.sinks.sync.log import IncrementLog, Open
from billing.sinks.sync.protocol import LEASE
from billing.sinks.sync.restored.comparing import Guard

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
    #: Taken for lost before the push began.
    lost: int = 0
    #: Whether there may be more than one push sends at most.
    more: bool = False
    #: A line for each meter that takes nothing: its increments wait, the others went on.
    refused: tuple[str, ...] = ()
    #: A line for each client that is told nothing more, since Stripe has units of it that nobody here sent.
    held: tuple[str, ...] = ()
    stopped: str | None = None


class Pusher:
    """Pushes to all meters, in the books of one kind of key.

    With one thread, a `wait` and a `between` of its own, it does the same each time. `events` and `reads` are the
    fleet's budgets of calls (None: no bound). `guard` is asked before a customer is told anything, and told of calls.
    """

    def __init__(  # noqa: PLR0913 - its surroundings, each of which a test may choose
        self,
        log: IncrementLog,
        clock: Clock,
        open_sink: Callable[[], MeterSink],
        *,
        books: str,
        events: Budget | None = None,
        reads: Budget | None = None,
        threads: int = THREADS,
        wait: Wait | None = None,
        between: Callable[[float, float], float] = random.uniform,
        backoff_seconds: float = BACKOFF_SECONDS,
        guard: Guard | None = None,
    ) -> None:
        self._log, self._clock, self._open_sink, self._books = log, clock, open_sink, books
        self._events, self._reads, self._threads = events, reads, threads
        self._wait, self._between, self._backoff_seconds = wait, between, backoff_seconds
        self._guard = guard

    def push(self, *, most: int, seconds: float = SECONDS, client_id: str | None = None) -> PushReport:
        """Send at most `most` increments, of one client only if one is named.

        Raises `Fatal`, `Rejected` or `Unreachable` when the sink cannot take any, unless the push has changed something
        already: then its report says both.
        """
        search = Open(books=self._books, now=self._clock.now(), most=most, client_id=client_id)
        lost = sum(self._note_lost(increment_id) for increment_id in self._log.find_lost(search))
        found = self._log.find_open(search)
        report = PushReport(lost=lost, more=len(found) == most)
        if not found:
            return report
        sink = self._open_sink()
        try:
            where = sink.where
            course = self._course(seconds, where)
            # A wrong meter would refuse every increment for good, or count them wrongly: it is looked at first.
            found, refused = check_meters(
                sink, self._log.find_open, search, found, turn=lambda: course.turn(self._reads)
            )
        except BillingError as error:
            if not lost:
                raise
            return dataclasses.replace(report, stopped=str(error))
        finally:
            sink.close()
        if refused and not found and not lost:
            raise next(iter(refused.values()))
        course.refused.update({event_name: str(error) for event_name, error in refused.items()})
        states = self._send_all(found, course)
        return dataclasses.replace(
            report,
            more=len(found) == most,
            sent=states[State.SENT],
            pending=states[State.PENDING],
            ambiguous=states[State.AMBIGUOUS],
            rejected=states[State.REJECTED],
            held=tuple(f"client {client_id}: {course.held[client_id]}" for client_id in sorted(course.held)),
            refused=tuple(course.refused[event_name] for event_name in sorted(course.refused)),
            stopped=course.stopped,
        )

    def _course(self, seconds: float, where: str) -> Course:
        return Course(
            self._clock,
            seconds=seconds,
            where=where,
            backoff_seconds=self._backoff_seconds,
            wait=self._wait,
            between=self._between,
        )

    def _note_lost(self, increment_id: int) -> bool:
        lost: list[Increment] = []

        def decide(increment: Increment) -> tuple[Increment | None, Attempt | None]:
            now = self._clock.now()
            found = protocol.lost(increment, now)
            if found is None:
                return None, None
            lost.append(found)
            return found, attempt_of(found, Reply(answer=Answer.UNKNOWN, reason="the pusher ended"), now)

        self._log.note(increment_id, decide)
        return bool(lost)

    def _send_all(self, found: list[Increment], course: Course) -> Counter[State]:
        """Send in some threads; a customer's increments stay in one of them, one after the other."""
        ordered = sorted(found, key=lambda increment: increment.client_id)
        groups = [list(group) for _, group in itertools.groupby(ordered, key=lambda increment: increment.client_id)]
        states: list[State] = []

        def send(sink: MeterSink, group: list[Increment]) -> None:
            for increment in group:
                if course.goes_on() and self._may_send(sink, increment, course):
                    state = self._send(sink, increment.increment_id, course)
                    states.extend([state] if state is not None else [])

        in_threads(groups, send, open_sink=self._open_sink, course=course, threads=self._threads)
        return Counter(states)

    def _may_send(self, sink: MeterSink, increment: Increment, course: Course) -> bool:
        """Whether its meter takes anything, and its customer's sum holds nothing that is not known here."""
        if increment.event_name in course.refused:
            return False
        held = "" if self._guard is None else self._guard.held(sink, increment, lambda: course.turn(self._reads))
        if held and course.goes_on():
            course.hold(increment.client_id, held)
        return not held

    def _send(self, sink: MeterSink, increment_id: int, course: Course) -> State | None:
        """Send one increment; None if another pusher has it, or its customer."""
        state: State | None = None
        for tries in itertools.count(1):
            before: list[Increment] = []

            def decide(increment: Increment, before: list[Increment] = before) -> Increment | None:
                before.append(increment)
                return protocol.claimed(increment, books=self._books, now=self._clock.now())

            until_monotonic = self._clock.monotonic() + LEASE.total_seconds()
            claim = self._log.claim(increment_id, decide)
            if claim is None:
                return state
            reply = self._refusal(self._call(sink, claim, until_monotonic, course), claim, course)
            state = self._note(claim, reply, doubted=before[-1].state is State.AMBIGUOUS)
            course.note(claim.event_name, reply)
            if reply.answer is not Answer.BUSY or not course.wait(tries):
                return state
        return state

    def _call(self, sink: MeterSink, claim: Increment, until_monotonic: float, course: Course) -> Reply:
        if not course.turn(self._events):
            return Reply(answer=Answer.UNREACHED, reason="not sent: the push ended before its turn")
        # A machine that sleeps stops the monotonic clock, and a set-back clock hides a pause: either may tell.
        paused = claim.lease_until is None or self._clock.now() >= claim.lease_until
        if paused or self._clock.monotonic() >= until_monotonic:
            # The process was paused: others may have taken the increment over, and Stripe may forget identifiers.
            return Reply(answer=Answer.UNREACHED, reason="not sent: the pusher was paused for longer than its lease")
        if self._guard is not None:
            self._guard.note(claim)
        return sink.send(claim.payload, idempotency_key=claim.idempotency_key)

    def _refusal(self, reply: Reply, claim: Increment, course: Course) -> Reply:
        """Return the reply; what is refused since its meter takes nothing any more is no fault of the increment."""
        if reply.answer is not Answer.REFUSED or not course.turn(self._reads):
            return reply
        sink = self._open_sink()
        try:
            sink.check(claim.event_name)
        except Unreachable:
            return reply
        except BillingError as error:
            course.refuse(claim.event_name, str(error))
            return dataclasses.replace(reply, answer=Answer.FORBIDDEN, reason=f"{error}; {reply.reason}")
        finally:
            sink.close()
        return reply

    def _note(self, claim: Increment, reply: Reply, *, doubted: bool) -> State | None:
        def decide(increment: Increment) -> tuple[Increment | None, Attempt | None]:
            found = protocol.answered(increment, claim.attempts, reply, doubted=doubted)
            return found, attempt_of(claim, reply, self._clock.now())

        noted = self._log.note(claim.increment_id, decide)
        return noted.state if noted is not None else None
