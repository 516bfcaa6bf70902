"""The protocol's looks: what the sink's own sums prove about an increment. Pure.

They decide what no answer does: its minute shows its units (confirmed), nothing for a day (absent: `protocol` gives it
another generation), or something else (quarantined). A look is of when it began, at one generation.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from typing import Final

from billing.sinks.sink import Kind, Payload
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.protocol import AHEAD_MAX, LEASE, LOOKED_AT, RESEND_WITHIN, is_absent

#: How far apart looks at an increment's minute must find nothing before it is taken to be absent. Stripe promises no
#: bound for its summaries; a day is more than anybody has seen.
ABSENT_FOR: Final = timedelta(hours=24)
#: For how long after its latest attempt a later generation's sum is no proof yet: should sums be later than
#: `ABSENT_FOR`, it may be an earlier generation's, and this one's is yet to show.
SETTLED_AFTER: Final = timedelta(hours=48)
#: How long a sum may be refused before a person is to look at the increment.
REFUSED_FOR: Final = timedelta(hours=48)


def may_check(increment: Increment, *, books: str) -> bool:
    """Whether the sums of these books may prove something about it."""
    if increment.first_attempt_at is None or increment.sent_to != books:
        return False
    return increment.state in LOOKED_AT


def _says_nothing(increment: Increment, payload: Payload) -> bool:
    """Whether a look is of no use: at another generation, or at what is decided."""
    return increment.state not in LOOKED_AT or payload != increment.payload


def checked(
    increment: Increment, shown: int, now: datetime, *, payload: Payload, doubted_by: str | None = None
) -> Increment | None:
    """Return it after a look at the sink's sum of `payload` alone, or None when the look says nothing of it.

    Where it `may_show_twice`, `shown` is of all its generations that were sent: they may lie in several minutes. `now`
    is when the look began, however late it is noted: what was sent after it cannot have shown. `doubted_by`: the code
    of a report that may be about one of its calls without naming it (`afterwards.doubts`).
    """
    if _says_nothing(increment, payload):
        return None
    increment = _never_again(increment, now)
    if shown == 0:
        return _unseen(increment, now, doubted_by)
    found = dataclasses.replace(increment, checked_at=now, absent_since=None, absence_checks=0)
    if shown != increment.units:
        reason = f"its own sum is {shown} at the sink, not its {increment.units} units"
        return dataclasses.replace(found, state=State.QUARANTINED, reason=reason)
    if _is_settled(increment, now):
        return dataclasses.replace(found, state=State.CONFIRMED, reason="", confirmed_at=now)
    # Either is counted: it is not sent again, and is watched until a second one would have shown.
    return dataclasses.replace(found, state=State.SENT) if found.state is State.AMBIGUOUS else found


def _unseen(increment: Increment, now: datetime, doubted_by: str | None) -> Increment:
    latest = increment.last_attempt_at
    if latest is not None and now < latest + LEASE:
        return dataclasses.replace(increment, checked_at=now)  # the call may still be under way
    since = increment.absent_since or now
    # A look proves no more than the one before it until a day has passed: what was sent may show late.
    counts = not increment.absence_checks or now - since >= ABSENT_FOR
    seen = dataclasses.replace(
        increment, checked_at=now, absent_since=since, absence_checks=increment.absence_checks + counts
    )
    if seen.state is State.QUARANTINED or not is_absent(seen):
        return seen
    if doubted_by is not None:
        # What dropped it would drop its next generation as well.
        reason = f"nothing shows of it, and the sink reported errors near its calls without naming them: {doubted_by}"
        return dataclasses.replace(seen, state=State.QUARANTINED, reason=reason)
    if seen.state is State.SENT:
        reason = "it was taken, and has not shown in the sink's sums for a day"
        return dataclasses.replace(seen, state=State.AMBIGUOUS, reason=reason)
    return seen


def may_show_twice(increment: Increment) -> bool:
    """Whether an earlier generation of it may have been sent, and may show as well: a look is at all of them."""
    return increment.generation > 1 and increment.attempts > 1


def _is_settled(increment: Increment, now: datetime) -> bool:
    if not may_show_twice(increment) or increment.withdrawn_at is not None:
        return True  # both have shown, and one of them was taken back
    latest = increment.last_attempt_at
    return latest is None or now >= latest + SETTLED_AFTER


def check_refused(increment: Increment, reason: str, now: datetime, *, payload: Payload) -> Increment | None:
    """Return it after a look, begun at `now`, that the sink refused, as of a customer that it does not know."""
    if _says_nothing(increment, payload):
        return None
    increment = _never_again(increment, now)
    since = increment.last_attempt_at or now
    state = State.QUARANTINED if now - since > REFUSED_FOR else increment.state
    found = dataclasses.replace(increment, state=state, reason=reason, checked_at=now)
    return dataclasses.replace(found, absent_since=None, absence_checks=0)


def unanswered(increment: Increment, now: datetime) -> Increment | None:
    """Return it after a look that nobody answered: it goes behind those that wait for theirs."""
    if increment.state not in LOOKED_AT:
        return None
    return dataclasses.replace(_never_again(increment, now), checked_at=now)


def _never_again(increment: Increment, now: datetime) -> Increment:
    """Return it as one that is not sent again under its identifier, if its first attempt is on record as of the future.

    The clock was set back since. What is ahead now would be in time again hours later, when the sink may have forgotten
    the identifier.
    """
    first = increment.first_attempt_at
    if first is None or first <= now + AHEAD_MAX:
        return increment
    return dataclasses.replace(increment, first_attempt_at=now - RESEND_WITHIN)


def counted_twice(increment: Increment, shown: int) -> bool:
    """Whether the sum shows two generations of it: the sums were silent for longer than a day. The newer one goes."""
    twice = may_show_twice(increment) and shown == 2 * increment.units
    return twice and increment.kind is Kind.METER_EVENT
