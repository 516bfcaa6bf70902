"""The protocol: what may be done with an increment, and what becomes of it. Pure.

With `looks.py` and `afterwards.py`, every decision about money.

| answer | no earlier call in doubt | an earlier call in doubt |
|---|---|---|
| taken, duplicate | sent | sent |
| busy, unreached, forbidden (not executed) | pending | ambiguous |
| refused | rejected | ambiguous: the earlier one may have been taken |
| unknown (no answer, HTTP 500, the pusher died) | ambiguous | ambiguous |

What is ambiguous is sent again under the same identifier, as long as the sink is sure to know it. After that only the
sink's own sums decide: an increment's minute shows its units (confirmed), nothing for a day (the next generation, under
another identifier), or something else (quarantined, for a person). On doubt a client is billed too little and a person
is told, never twice (L8).
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Final

from billing.sinks.sink import Answer, Kind, Reply
from billing.sinks.sync.increment import Increment, State

#: Stripe knows an identifier for "at least 24 hours" after its receipt, which is never before the first attempt. A
#: clock that was set back by an hour, and a call that takes its time, leave half an hour of that.
RESEND_WITHIN: Final = timedelta(hours=22, minutes=30)
#: A time on record that is further ahead than this is of a clock that was set back since: how long ago it was is not
#: known. Together with `RESEND_WITHIN` less than Stripe's 24 hours, so that clocks of several machines may differ.
AHEAD_MAX: Final = timedelta(minutes=30)
#: Longer than one call can take: its bound on connecting, and on each wait for bytes.
LEASE: Final = timedelta(seconds=120)
#: Looks, of which the second is so long after the first (`looks.ABSENT_FOR`), that must find nothing of it.
ABSENCE_CHECKS: Final = 2
#: Stripe takes no event that is more than 35 days in the past; an hour less, so that clocks may differ.
EVENT_AGE_MAX: Final = timedelta(days=35) - timedelta(hours=1)
#: Identifiers that one increment may be sent under (L9); what is absent after the last is quarantined.
GENERATIONS_MAX: Final = 3

NOT_EXECUTED: Final = (Answer.BUSY, Answer.UNREACHED, Answer.FORBIDDEN)
#: How a reason begins for which a customer and meter is told nothing until a person has looked.
HELD: Final = "held: "
#: The states in which the sink's sums are looked at.
LOOKED_AT: Final = (State.SENT, State.AMBIGUOUS, State.QUARANTINED)


def state_after(answer: Answer, *, doubted: bool) -> State:
    """Return the increment's state after an answer; `doubted`: what came of an earlier attempt is not known."""
    if answer in (Answer.TAKEN, Answer.DUPLICATE):
        return State.SENT
    if doubted or answer is Answer.UNKNOWN:
        return State.AMBIGUOUS
    return State.PENDING if answer in NOT_EXECUTED else State.REJECTED


def is_closed(increment: Increment, now: datetime) -> bool:
    """Whether the invoice of its period may be final, so that what is sent now is on none."""
    return increment.closes_at is not None and now >= increment.closes_at


def is_too_old(increment: Increment, now: datetime) -> bool:
    """Whether the sink takes no event with its time any more."""
    return increment.kind is Kind.METER_EVENT and now - increment.event_at >= EVENT_AGE_MAX


def is_ahead(increment: Increment, now: datetime) -> bool:
    """Whether it was planned by a clock that was set back since: it would wait until that one's time has come."""
    return increment.event_at > now + AHEAD_MAX


def may_send(increment: Increment, *, books: str, now: datetime) -> bool:
    """Whether a call may be made for it now, to the books of this kind of key."""
    if increment.state not in (State.PENDING, State.AMBIGUOUS) or increment.event_at > now:
        return False
    if increment.sent_to not in (None, books) or is_closed(increment, now):
        return False
    if is_too_old(increment, now):
        return False
    first = increment.first_attempt_at
    return first is None or now - RESEND_WITHIN < first <= now + AHEAD_MAX


def is_held(increment: Increment) -> bool:
    """Whether nothing was sent of it when it was last looked at: it is the last to be tried (L10)."""
    return increment.reason.startswith(HELD)


def claimed(increment: Increment, *, books: str, now: datetime) -> Increment | None:
    """Return it as one that is being sent, or None when it may not be."""
    if not may_send(increment, books=books, now=now):
        return None
    return dataclasses.replace(
        increment,
        state=State.SENDING,
        attempts=increment.attempts + 1,
        first_attempt_at=increment.first_attempt_at or now,
        last_attempt_at=now,
        lease_until=now + LEASE,
        sent_to=books,
        absent_since=None,
        absence_checks=0,
    )


def is_lost(increment: Increment, now: datetime) -> bool:
    """Whether who sends it died, or hung for longer than its lease.

    A lease that ends later than any can is of a clock that was set back since.
    """
    lease = increment.lease_until
    return increment.state is State.SENDING and (lease is None or lease < now or lease > now + AHEAD_MAX + LEASE)


def lost(increment: Increment, now: datetime) -> Increment | None:
    """Return it as one that may have arrived, or None when its pusher lives."""
    if not is_lost(increment, now):
        return None
    reason = "the pusher that sent it ended before it had noted an answer"
    return dataclasses.replace(increment, state=State.AMBIGUOUS, lease_until=None, reason=reason)


def answered(increment: Increment, attempt: int, reply: Reply, *, doubted: bool) -> Increment | None:
    """Return it after the answer to one of its attempts, or None when a later attempt has the say.

    An attempt that was taken for lost meanwhile still says what it learned, and one that was given up says that the
    sink has it.
    """
    state = state_after(reply.answer, doubted=doubted)
    heard = increment.state in (State.SENDING, State.AMBIGUOUS)
    heard = heard or (increment.state is State.QUARANTINED and state is State.SENT)
    if increment.attempts != attempt or not heard:
        return None
    nothing = state is State.PENDING
    return dataclasses.replace(
        increment,
        state=state,
        lease_until=None,
        # That a duplicate is there is no reason to look at it: its words are the attempt's.
        reason="" if state is State.SENT else reply.reason,
        first_attempt_at=None if nothing else increment.first_attempt_at,
        sent_to=None if nothing else increment.sent_to,
    )


def is_absent(increment: Increment) -> bool:
    """Whether it is taken not to have arrived: a look, and another one a day later, and each between, found nothing."""
    return increment.absence_checks >= ABSENCE_CHECKS


def reported(increment: Increment, code: str, *, key: str) -> Increment | None:
    """Return it after the sink reported that it dropped what it took under this idempotency key.

    What its sums have shown stays, and a key of another generation says nothing. It is rejected only where the call was
    the only one of its generation that may have arrived: otherwise its sums are to tell, or a person.
    """
    latest = key == increment.idempotency_key
    if not latest and key not in (f"{increment.identifier}#{attempt}" for attempt in range(1, increment.attempts)):
        return None
    # A later call that is under way, or whose outcome is not known, has the say.
    if increment.state not in ((*LOOKED_AT, State.SENDING) if latest else (State.SENT,)):
        return None
    only = latest and increment.first_attempt_at == increment.last_attempt_at
    state = State.REJECTED if only else State.QUARANTINED
    reason = f"it was taken, and dropped later: {code}" + ("" if only else "; another call of it is not reported")
    return dataclasses.replace(increment, state=state, reason=reason, lease_until=None)


def needs_reissue(increment: Increment, now: datetime) -> bool:
    """Whether it cannot be sent as it is, though nothing of it has arrived: closed, too old, too early, or absent."""
    if increment.state is State.PENDING:
        return is_closed(increment, now) or is_too_old(increment, now) or is_ahead(increment, now)
    return increment.state is State.AMBIGUOUS and is_absent(increment)


def reissued(  # noqa: PLR0913 - the payload, whole
    increment: Increment,
    *,
    kind: Kind,
    customer_id: str,
    period_start: datetime,
    period_end: datetime,
    closes_at: datetime | None,
    event_at: datetime,
    carries_from: datetime | None,
    identifier: str,
    reason: str,
) -> Increment:
    """Return its next generation: the same units under another identifier. Where none may follow, it is quarantined."""
    if increment.state is State.AMBIGUOUS and increment.generation >= GENERATIONS_MAX:
        given_up = f"{reason}; it was sent under {increment.generation} identifiers"
        return dataclasses.replace(increment, state=State.QUARANTINED, reason=given_up)
    return dataclasses.replace(
        increment,
        generation=increment.generation + 1,
        kind=kind,
        customer_id=customer_id,
        period_start=period_start,
        period_end=period_end,
        closes_at=closes_at,
        event_at=event_at,
        carries_from=carries_from,
        identifier=identifier,
        state=State.PENDING,
        reason=reason,
        first_attempt_at=None,
        sent_to=None,
        lease_until=None,
        checked_at=None,
        absent_since=None,
        absence_checks=0,
        withdrawn_at=None,
    )


def written_off(increment: Increment, reason: str) -> Increment:
    """Return it as never to be billed."""
    return dataclasses.replace(increment, state=State.WRITTEN_OFF, reason=reason, lease_until=None)


def may_resolve(increment: Increment, now: datetime) -> bool:
    """Whether it is for a person to say what becomes of it: not while a call of it may still arrive.

    A call that is further ahead than clocks differ is of a clock that was set back since, as in `is_lost`.
    """
    latest = increment.last_attempt_at
    if latest is not None and latest - AHEAD_MAX <= now < latest + LEASE:
        return False
    return increment.state in (State.REJECTED, State.QUARANTINED, State.AMBIGUOUS)


def resolved_as_confirmed(increment: Increment, reason: str, now: datetime) -> Increment:
    """Return it as what a person has seen at the sink."""
    return dataclasses.replace(increment, state=State.CONFIRMED, reason=reason, confirmed_at=now, lease_until=None)


def resolved_as_absent(increment: Increment, reason: str, now: datetime) -> Increment:
    """Return it as what a person knows not to be there: the next plan makes its next generation."""
    return dataclasses.replace(
        increment, state=State.PENDING, reason=reason, closes_at=now, first_attempt_at=None, sent_to=None
    )
