"""The report to Stripe, from Python: plan, push, confirmation, status. Links and setup are beside it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing.admin.access import runtime_for
from billing.connections import postgres
from billing.core.settings import Settings
from billing.sinks.sync.status import SyncStatus, read_status

if TYPE_CHECKING:  # the SDK takes a quarter of a second to import: only what calls Stripe does so
    from billing.sinks.sync.confirmer import ConfirmReport
    from billing.sinks.sync.planner import PlanReport
    from billing.sinks.sync.pusher import PushReport


def sync_plan(settings: Settings) -> PlanReport:
    """Plan all usage of linked clients that no increment carries yet. Nothing is sent."""
    from billing.sinks.stripe import sync  # noqa: PLC0415 - see above

    return sync.plan(runtime_for(settings))


def sync_push(settings: Settings) -> PushReport:
    """Send what is planned. Raises `Unreachable` or `Fatal` when Stripe, the key or the meter takes nothing."""
    from billing.sinks.stripe import sync  # noqa: PLC0415

    return sync.push(runtime_for(settings))


def sync_confirm(settings: Settings) -> ConfirmReport:
    """Confirm what Stripe's own summaries show of what was sent."""
    from billing.sinks.stripe import sync  # noqa: PLC0415

    return sync.confirm(runtime_for(settings))


def sync_status(settings: Settings) -> SyncStatus:
    """Return how the report to Stripe stands."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        return read_status(connection, runtime.clock.now())
