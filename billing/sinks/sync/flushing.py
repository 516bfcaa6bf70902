"""Plans and pushes one client's usage now: before its price changes, or its subscription ends.

It ends (L9): another planner at work is waited for up to a bound, and so is a minute that is free.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Final

from billing.core.clock import Clock
from billing.sinks.sync.calling.pusher import Pusher, PushReport
from billing.sinks.sync.planning.planner import Planner, PlanReport
from billing.sinks.sync.telling.left import Left

SECONDS: Final = 120.0
#: Between two tries.
_WAIT_SECONDS: Final = 1.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class FlushReport:
    """What a flush did, and what is left. `why`: a line for each thing that is left."""

    client_id: str
    increments: int
    sent: int
    left: Left
    why: tuple[str, ...]

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left that should be gone."""
        return self.left.is_all_there


def flush(
    client_id: str,
    planner: Planner,
    pusher: Pusher,
    read_left: Callable[[], Left],
    clock: Clock,
    wait: Callable[[float], object],
    *,
    most: int,
    seconds: float = SECONDS,
) -> FlushReport:
    """Plan and push until nothing is left that another try may move, or `seconds` are used up. Raises as the pusher."""
    deadline = clock.monotonic() + seconds
    increments = sent = 0
    while True:
        plan = planner.plan(client_id=client_id, seconds=seconds)
        push = pusher.push(most=most, client_id=client_id)
        increments, sent = increments + plan.increments + plan.reissued, sent + push.sent
        moves = plan.busy or not plan.complete or plan.postponed or push.more
        if not moves or clock.monotonic() > deadline:
            break
        wait(_WAIT_SECONDS)
    left = read_left()
    return FlushReport(
        client_id=client_id, increments=increments, sent=sent, left=left, why=tuple(_why(left, plan, push))
    )


def _why(left: Left, plan: PlanReport, push: PushReport) -> list[str]:
    found = []
    if left.credits:
        found.append(f"{left.credits:,} credits are not planned: {_reason(left, plan)}")
    if left.remainder:
        found.append(f"{left.remainder:,} credits are less than one unit of their meter: they wait for more")
    if left.carried:
        found.append(f"{left.carried:,} credits were returned beyond what was used: the next usage is reported less")
    for one in left.increments:
        reason = f" ({one.reason})" if one.reason else ""
        found.append(f"{one.increments:,} increments with {one.units:,} units are {one.state}{reason}")
    if push.stopped is not None:
        found.append(f"the push stopped: {push.stopped}")
    return [*found, *push.refused, *push.held]


def _reason(left: Left, plan: PlanReport) -> str:
    if not left.linked:
        return "the client is not linked to a Stripe customer (billing client link CLIENT cus_…)"
    if plan.busy:
        return "another plan is at work"
    if plan.waiting:
        return "; ".join(sorted(plan.waiting))
    if plan.unread:
        return plan.unread
    return "no minute is free yet" if plan.postponed else "they came while this ran"
