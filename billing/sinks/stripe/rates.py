"""The fleet's rate of calls to Stripe that only read: one budget, whoever reads."""

from __future__ import annotations

from billing.sinks.stripe.keys import KeyKind, key_kind
from billing.sinks.sync.calling.budget import READS, READS_PER_SECOND, PostgresBudget
from billing.task.runtime import Runtime


def reads_budget(runtime: Runtime) -> PostgresBudget | None:
    """Return the budget of calls that only read; none at the stand-in, which bounds nobody."""
    if key_kind(runtime.settings) is KeyKind.STAND_IN:
        return None
    return PostgresBudget(runtime.engine, READS, per_second=READS_PER_SECOND)
