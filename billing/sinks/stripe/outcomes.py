"""What becomes of an increment after an answer: the table of outcomes. Pure.

| answer | no earlier call in doubt | an earlier call in doubt |
|---|---|---|
| taken, duplicate | sent | sent |
| busy, unreached, forbidden (not executed) | pending | ambiguous |
| refused | rejected | ambiguous: the earlier one may have been taken |
| unknown (no answer, HTTP 500, the pusher died) | ambiguous | ambiguous |

What is ambiguous is sent again under the same identifier, as long as Stripe is sure to know it; after that never
blindly (L8: on doubt the client is billed too little and a person is told, never twice).
"""

from __future__ import annotations

from datetime import timedelta
from enum import Enum
from typing import Final

from billing.sinks.sink import Answer


class State(Enum):
    """The states of an increment, as `stripe_increment.state` has them."""

    PENDING = "pending"
    SENDING = "sending"
    SENT = "sent"
    CONFIRMED = "confirmed"
    AMBIGUOUS = "ambiguous"
    REJECTED = "rejected"
    QUARANTINED = "quarantined"


#: Stripe knows an identifier for "at least 24 hours" after its receipt, which is never before the first attempt.
RESEND_WITHIN: Final = timedelta(hours=23)
#: A time on record that is further ahead than this is of a clock that was set back since: how long ago it was is not
#: known. Together with `RESEND_WITHIN` less than Stripe's 24 hours, so that clocks of several machines may differ.
AHEAD_MAX: Final = timedelta(minutes=30)

_NOT_EXECUTED: Final = (Answer.BUSY, Answer.UNREACHED, Answer.FORBIDDEN)


def state_after(answer: Answer, *, doubted: bool) -> State:
    """Return the increment's state after an answer; `doubted`: what came of an earlier attempt is not known."""
    if answer in (Answer.TAKEN, Answer.DUPLICATE):
        return State.SENT
    if doubted or answer is Answer.UNKNOWN:
        return State.AMBIGUOUS
    return State.PENDING if answer in _NOT_EXECUTED else State.REJECTED
