"""The safeguards of the sync, each as a patch that takes it away: one function of the project's, or of the log's."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Any

import pytest

from billing.sinks.sink import Answer, Reply
from billing.sinks.sync import afterwards, looks, protocol
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.planning import drafts, minutes
from billing.sinks.sync.planning.drafts import Part
from billing.sinks.sync.planning.periods import KnownPeriod
from tests.simulation.sync.memory_log import MemoryLog
from tests.simulation.sync.memory_plan import MemoryPlan

Patch = pytest.MonkeyPatch


def no_beginning_on_record(patch: Patch) -> None:
    """Do not write down when the first attempt began."""
    real = protocol.claimed

    def claimed(increment: Increment, *, books: str, now: datetime) -> Increment | None:
        found = real(dataclasses.replace(increment, first_attempt_at=None), books=books, now=now)
        return found and dataclasses.replace(found, first_attempt_at=now)

    patch.setattr(protocol, "claimed", claimed)


def no_attempt_on_record(patch: Patch) -> None:
    """Let an increment stay what it was while it is sent: who dies leaves no trace."""
    real_claimed, real_answered = protocol.claimed, protocol.answered

    def claimed(increment: Increment, *, books: str, now: datetime) -> Increment | None:
        found = real_claimed(increment, books=books, now=now)
        return found and dataclasses.replace(found, state=increment.state, first_attempt_at=increment.first_attempt_at)

    def answered(increment: Increment, attempt: int, reply: Reply, *, doubted: bool) -> Increment | None:
        sending = dataclasses.replace(
            increment, state=State.SENDING, first_attempt_at=increment.last_attempt_at, sent_to="stand-in"
        )
        return real_answered(sending, attempt, reply, doubted=doubted)

    patch.setattr(protocol, "claimed", claimed)
    patch.setattr(protocol, "answered", answered)


def fresh_identifier(patch: Patch) -> None:
    """Name each attempt anew."""
    real = Increment.payload.fget  # type: ignore[attr-defined]

    def payload(self: Increment) -> Any:
        found = real(self)
        return dataclasses.replace(found, identifier=f"{found.identifier}-{self.attempts}")

    patch.setattr(Increment, "payload", property(payload))


def identifier_of_the_client(patch: Patch) -> None:
    """Let the identifier cover the client and meter only."""
    patch.setattr(drafts, "COVERED", ("client_id", "event_name"))


def identifier_without_generation(patch: Patch) -> None:
    """Send the next generation under the name of the one before."""
    kept = tuple(name for name in drafts.COVERED if name not in {"generation", "event_at", "closes_at"})
    patch.setattr(drafts, "COVERED", kept)


def one_key_for_all(patch: Patch) -> None:
    """Use one idempotency key for all attempts."""
    patch.setattr(Increment, "idempotency_key", property(lambda self: self.identifier))


def duplicate_is_an_error(patch: Patch) -> None:
    """Take a duplicate for a refusal."""
    real = protocol.state_after

    def state_after(answer: Answer, *, doubted: bool) -> State:
        return State.REJECTED if answer is Answer.DUPLICATE else real(answer, doubted=doubted)

    patch.setattr(protocol, "state_after", state_after)


def refusal_in_doubt_is_final(patch: Patch) -> None:
    """Believe a refusal, whatever came of an earlier attempt."""
    real = protocol.state_after
    patch.setattr(protocol, "state_after", lambda answer, *, doubted: real(answer, doubted=False))


def silence_is_nothing(patch: Patch) -> None:
    """Take a call without an answer for one that was not executed."""
    real = protocol.state_after

    def state_after(answer: Answer, *, doubted: bool) -> State:
        return real(Answer.UNREACHED if answer is Answer.UNKNOWN else answer, doubted=doubted)

    patch.setattr(protocol, "state_after", state_after)


def resent_blindly(patch: Patch) -> None:
    """Send again however long ago it was."""
    patch.setattr(protocol, "RESEND_WITHIN", timedelta(days=400))


def the_dead_sent_nothing(patch: Patch) -> None:
    """Believe that a pusher that died had not sent anything."""
    real = protocol.lost

    def lost(increment: Increment, now: datetime) -> Increment | None:
        found = real(increment, now)
        return found and dataclasses.replace(found, state=State.PENDING, first_attempt_at=None, sent_to=None)

    patch.setattr(protocol, "lost", lost)


def absent_at_first_sight(patch: Patch) -> None:
    """Believe the first look that finds nothing."""
    patch.setattr(protocol, "ABSENCE_CHECKS", 1)
    patch.setattr(looks, "ABSENT_FOR", timedelta())


def absent_within_hours(patch: Patch) -> None:
    """Believe looks of a few hours."""
    patch.setattr(looks, "ABSENT_FOR", timedelta(minutes=30))


def shared_minutes(patch: Patch) -> None:
    """Stamp increments of a customer and meter with the same minute."""
    real = minutes.free
    patch.setattr(minutes, "free", lambda last, first, taken, count: real(last, first, (), 1) * count)


def nobody_waits_his_turn(patch: Patch) -> None:
    """Let a customer and meter have several in flight."""
    patch.setattr(MemoryLog, "flies", lambda self, increment: False)


def leases_are_over_at_once(patch: Patch) -> None:
    """Take everybody who is sending for dead."""
    patch.setattr(protocol, "is_lost", lambda increment, now: increment.state is State.SENDING)


def leases_never_end(patch: Patch) -> None:
    """Wait for the dead."""
    patch.setattr(protocol, "is_lost", lambda increment, now: False)


def nothing_closes(patch: Patch) -> None:
    """Send for periods whose invoice is final."""
    patch.setattr(protocol, "is_closed", lambda increment, now: False)
    patch.setattr(KnownPeriod, "is_open", lambda self, now: True)


def pending_stays(patch: Patch) -> None:
    """Leave in its period what can no longer be sent for it."""
    patch.setattr(protocol, "needs_reissue", lambda increment, now: False)


def reports_are_not_heard(patch: Patch) -> None:
    """Hear nothing of what was dropped."""
    patch.setattr(afterwards, "named", lambda increment, report: None)
    patch.setattr(afterwards, "leaves_open", lambda report, increments: False)


def negatives_are_sent(patch: Patch) -> None:
    """Send what is below zero, as a correction."""
    real = drafts._filled

    def filled(rows: Any, each: int) -> Any:
        units = sum(row.left for row in rows) // each
        if units >= 0:
            return real(rows, each)
        parts = [
            Part(sku=row.sku, hour=row.hour, credits_from=-row.returned_planned, credits_to=-row.returned)
            for row in rows
            if row.returned > row.returned_planned
        ]
        return [(units, parts)], []

    patch.setattr(drafts, "_filled", filled)


def remainder_is_dropped(patch: Patch) -> None:
    """Round down, and forget what is left of a unit."""
    real = drafts._filled

    def filled(rows: Any, each: int) -> Any:
        made, _ = real(rows, each)
        if len(made) != 1 or each == 1:
            return made, []
        units, parts = made[0]
        upto = {(part.sku, part.hour): part for part in parts if part.credits > 0}
        whole = [
            dataclasses.replace(part, credits_to=row.credits + row.returned)
            for row in rows
            if (part := upto.get((row.sku, row.hour))) is not None
        ]
        return [(units, [*(part for part in parts if part.credits < 0), *whole])], []

    patch.setattr(drafts, "_filled", filled)


def planned_outside_of_the_transaction(patch: Patch) -> None:
    """Keep what rows have planned when the plan did not come to its end."""
    real = MemoryPlan._advance

    def advance(self: MemoryPlan, key: Any, credits_: int) -> None:
        real(self, key, credits_)
        self._undo.pop()

    patch.setattr(MemoryPlan, "_advance", advance)


def refused_sums_mean_nothing(patch: Patch) -> None:
    """Ask for a customer's sums for ever."""
    patch.setattr(looks, "check_refused", lambda increment, reason, now, *, payload: None)


def nobody_looks(patch: Patch) -> None:
    """Confirm nothing."""
    patch.setattr(looks, "may_check", lambda increment, *, books: False)


def any_sum_confirms(patch: Patch) -> None:
    """Take any look for a proof."""
    real = looks.checked

    def checked(increment: Increment, shown: int, now: datetime, **more: Any) -> Increment | None:
        return real(increment, increment.units, now, **more)

    patch.setattr(looks, "checked", checked)
