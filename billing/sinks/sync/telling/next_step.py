"""What happens next with an increment, and what a person can do about it. Pure; what `protocol.py` would decide."""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Final

from billing.sinks.sync import protocol
from billing.sinks.sync.increment import Increment, State


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class NextStep:
    """What happens next, and the command that does it, or lets a person do it; empty where nothing is to be done."""

    what: str
    command: str = ""


#: What happens next in each state but those in which it depends on time. `{id}` is the increment's.
_STEPS: Final = {
    State.SENDING: ("it is being sent; what its pusher leaves, the next push takes up", ""),
    State.SENT: ("it is confirmed once Stripe's sums show it", "billing sync confirm"),
    State.REJECTED: (
        "nothing of it was counted: mend the cause, then have it sent anew, or write it off",
        "billing sync resolve {id} --as resend|write-off --reason …",
    ),
    State.QUARANTINED: (
        "look at Stripe whether it is there, and say so",
        "billing sync resolve {id} --as confirmed|resend|write-off --reason …",
    ),
    State.CONFIRMED: ("nothing: Stripe has counted it", ""),
    State.WRITTEN_OFF: ("nothing: it is on no invoice", ""),
}


def next_step(increment: Increment, now: datetime) -> NextStep:
    """Return what happens next with an increment, as of `now`."""
    if increment.state is State.PENDING:
        what, command = _pending(increment, now)
    elif increment.state is State.AMBIGUOUS:
        what, command = _ambiguous(increment, now)
    else:
        what, command = _STEPS[increment.state]
    return NextStep(what=what, command=command.format(id=increment.increment_id))


def _pending(increment: Increment, now: datetime) -> tuple[str, str]:
    if protocol.is_closed(increment, now):
        return "its period is closed: the next plan makes it anew", "billing sync plan"
    if protocol.is_ahead(increment, now):
        return "it was planned by a clock that was ahead: the next plan makes it anew", "billing sync plan"
    return "the next push sends it", "billing sync push"


def _ambiguous(increment: Increment, now: datetime) -> tuple[str, str]:
    if protocol.may_send(increment, books=increment.sent_to or "", now=now):
        return "the next push sends it again under the same identifier", "billing sync push"
    if protocol.needs_reissue(increment, now):
        return "the next plan gives it another identifier", "billing sync plan"
    return "Stripe's sums decide: its units there confirm it, a day of nothing sends it anew", "billing sync confirm"
