"""What a reading asks of Stripe: whether it answers, by one small call that takes its turn among the fleet's reads."""

from __future__ import annotations

import time

from billing.core.clock import Clock
from billing.core.errors import Fatal
from billing.core.settings import Settings
from billing.sinks.sync.calling.budget import Budget, await_turn

#: Bounds on connecting and on the answer (L9).
_TIMEOUTS_SECONDS = (3.05, 10.0)


def answers(settings: Settings, clock: Clock, budget: Budget | None) -> bool:
    """Return whether Stripe answers, also where its answer is a refusal. Raises `Unreachable`."""
    # The SDK is slow to import; whoever imports a reading need not wait for it.
    from billing.sinks.stripe.gateway import Gateway  # noqa: PLC0415

    def turn() -> None:
        await_turn(budget, clock, time.sleep)

    with Gateway(settings, timeouts_seconds=_TIMEOUTS_SECONDS, retries=0, turn=turn) as gateway:
        try:
            gateway.meter(settings.stripe_meter)
        except Fatal:
            return True
    return True
