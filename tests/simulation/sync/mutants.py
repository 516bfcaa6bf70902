"""Safeguards of the sync, each taken away in turn: what the simulation has to find, and by which law.

A mutant patches one function of the project's. `finds` is the failure that is expected of it: a mutant that is found by
another law is a mutant that is not understood.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, Final

import pytest

from billing.sinks.sink import Answer, Reply
from billing.sinks.sync import afterwards, drafts, minutes, protocol
from billing.sinks.sync.drafts import Part
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.periods import KnownPeriod
from tests.simulation.sync.chances import DAY, HOUR, MINUTE, Outage, Rates
from tests.simulation.sync.memory_log import MemoryLog
from tests.simulation.sync.memory_plan import MemoryPlan
from tests.simulation.sync.world import Size

Patch = pytest.MonkeyPatch
COUNTED_TWICE: Final = "counted twice|counted after all"
#: Few clients, who use something every few hours.
BUSY: Final = Size(clients=5, days=6, habits=((1, 3),), deleted_once_in=0)


def _out(kind: str, *, blind: bool = False) -> tuple[Outage, ...]:
    """Return an outage of 40 hours of all that is sent, and of sums, if `blind`."""
    return (Outage(begin=2 * DAY, end=2 * DAY + 40 * HOUR, kind=kind, writes_only=True, blind=blind),)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mutant:
    """A safeguard that is taken away, where it matters, and what finds it."""

    finds: str
    apply: Callable[[Patch], None]
    size: Size = BUSY
    rates: Callable[[], Rates] = Rates
    #: After the beginning; None: as chance will have it.
    outages: tuple[Outage, ...] | None = None


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
    patch.setattr(protocol, "ABSENT_FOR", timedelta())


def absent_within_hours(patch: Patch) -> None:
    """Believe looks of a few hours."""
    patch.setattr(protocol, "ABSENT_FOR", timedelta(minutes=30))


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
    patch.setattr(protocol, "check_refused", lambda increment, reason, now: None)


def nobody_looks(patch: Patch) -> None:
    """Confirm nothing."""
    patch.setattr(protocol, "may_check", lambda increment, *, books: False)


def any_sum_confirms(patch: Patch) -> None:
    """Take any look for a proof."""
    real = protocol.checked

    def checked(increment: Increment, shown: int, now: datetime, **more: Any) -> Increment | None:
        return real(increment, increment.units, now, **more)

    patch.setattr(protocol, "checked", checked)


def _calm(**more: int) -> Callable[[], Rates]:
    def rates() -> Rates:
        made = Rates()
        made.calm()
        return dataclasses.replace(made, **more)

    return rates


def _busy(**more: object) -> Size:
    return dataclasses.replace(BUSY, **more)  # type: ignore[arg-type]


LAG: Final = _busy(knobs={"summary_lag_seconds": 20 * 3_600})
#: Nobody is reached for a day and more, again and again, from the middle of the first push after a plan on.
LONG: Final = tuple(
    Outage(
        begin=hours * HOUR + minutes * MINUTE,
        end=hours * HOUR + minutes * MINUTE + 26 * HOUR,
        kind="refused_connection",
        writes_only=True,
    )
    for hours, minutes in ((8, 12), (36, 14), (64, 16), (92, 18))
)
MUTANTS: Final[dict[str, Mutant]] = {
    "the first attempt is not on record": Mutant(
        apply=no_beginning_on_record, finds=COUNTED_TWICE, outages=_out("commit_then_close", blind=True)
    ),
    "an attempt is not on record before its call": Mutant(
        apply=no_attempt_on_record, finds="two calls at once", rates=_calm(twin=1), outages=_out("hang")
    ),
    "an identifier is fresh for each attempt": Mutant(apply=fresh_identifier, finds="which no increment is"),
    "an identifier does not cover the payload": Mutant(apply=identifier_of_the_client, finds="L9: .* Refused"),
    "a generation has the name of the one before": Mutant(
        apply=identifier_without_generation, finds="L9: .* Refused", outages=_out("drop")
    ),
    "an idempotency key is used twice": Mutant(apply=one_key_for_all, finds="is on record"),
    "a duplicate is an error": Mutant(apply=duplicate_is_an_error, finds=COUNTED_TWICE),
    "a refusal in doubt is final": Mutant(
        apply=refusal_in_doubt_is_final,
        finds=COUNTED_TWICE,
        outages=(Outage(begin=0, end=6 * DAY, kind="commit_then_close", once_in=2, writes_only=True),),
        rates=_calm(),
        size=_busy(
            clients=20, days=4, deleted_once_in=1, knobs={"deleted_customer": "refuse", "summary_lag_seconds": 72_000}
        ),
    ),
    "silence is nothing": Mutant(
        apply=silence_is_nothing, finds=COUNTED_TWICE, outages=_out("commit_then_close"), rates=_calm()
    ),
    "it is sent again blindly": Mutant(
        apply=resent_blindly, finds=COUNTED_TWICE, outages=_out("commit_then_close", blind=True)
    ),
    "the dead sent nothing": Mutant(
        apply=the_dead_sent_nothing,
        finds=COUNTED_TWICE,
        rates=_calm(killed=6),
        outages=LONG,
    ),
    "what is absent once is absent": Mutant(apply=absent_at_first_sight, finds=COUNTED_TWICE, size=LAG),
    "what is absent for hours is absent": Mutant(apply=absent_within_hours, finds=COUNTED_TWICE, size=LAG),
    "minutes are shared": Mutant(apply=shared_minutes, finds="is of increment", size=_busy(grace_hours=72)),
    "nobody waits his turn": Mutant(
        apply=nobody_waits_his_turn, finds="two in flight", rates=_calm(twin=1), outages=_out("refused_connection")
    ),
    "leases are over at once": Mutant(
        apply=leases_are_over_at_once, finds="two calls at once", rates=_calm(twin=1), outages=_out("hang")
    ),
    "leases never end": Mutant(apply=leases_never_end, finds="stalled", rates=_calm(killed=30)),
    "periods never close": Mutant(apply=nothing_closes, finds="lost: of", outages=_out("refused_connection")),
    "what is late stays": Mutant(apply=pending_stays, finds="stalled", outages=_out("refused_connection")),
    "reports are not heard": Mutant(apply=reports_are_not_heard, finds="sent again", rates=_calm(dropped=10)),
    "negatives are sent": Mutant(apply=negatives_are_sent, finds="units: -"),
    "what is left of a unit is dropped": Mutant(apply=remainder_is_dropped, finds="another sum than its units"),
    "what is planned is no transaction": Mutant(
        apply=planned_outside_of_the_transaction, finds="that were used", rates=_calm(killed=8)
    ),
    "sums that are refused mean nothing": Mutant(
        apply=refused_sums_mean_nothing,
        finds="stalled",
        rates=_calm(),
        size=_busy(deleted_once_in=1, refuses_sums=True, knobs={"summary_lag_seconds": 72_000}),
    ),
    "nobody looks": Mutant(apply=nobody_looks, finds="stalled"),
    "any sum confirms": Mutant(apply=any_sum_confirms, finds="lost", rates=_calm(dropped=10)),
}
