"""The fleet's rate of calls to Stripe that only read: one budget, whoever reads."""

from __future__ import annotations

import time
from collections.abc import Callable

from billing.core.errors import Unreachable
from billing.sinks.stripe.keys import KeyKind, key_kind
from billing.sinks.sync.calling.budget import READS, READS_PER_SECOND, PostgresBudget, await_turn
from billing.task.runtime import Runtime


def reads_budget(runtime: Runtime) -> PostgresBudget | None:
    """Return the budget of calls that only read; none at the stand-in, which bounds nobody."""
    if key_kind(runtime.settings) is KeyKind.STAND_IN:
        return None
    return PostgresBudget(runtime.engine, READS, per_second=READS_PER_SECOND)


def turn_to_read(runtime: Runtime, what: str) -> Callable[[], None]:
    """Return what waits for the turn of a call that reads, and raises `Unreachable` when there is none."""
    reads = reads_budget(runtime)

    def turn() -> None:
        if not await_turn(reads, runtime.clock, time.sleep):
            raise Unreachable(f"Stripe: no turn to read {what}: this machine is too slow for the fleet's rate")

    return turn
