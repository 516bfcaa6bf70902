"""The report to Stripe, from Python: plan, push, confirmation, status. Links and setup are beside it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

from billing.admin.access import runtime_for
from billing.catalog import clients as catalog
from billing.connections import postgres
from billing.core.identifiers import check_client_id
from billing.core.settings import Settings
from billing.sinks.sync.telling.status import SyncStatus, read_status
from billing.sinks.sync.telling.story import Story, read_story

if TYPE_CHECKING:  # the SDK takes a quarter of a second to import: only what calls Stripe does so
    from billing.sinks.stripe.restored import AdoptReport
    from billing.sinks.sync.calling.confirmer import ConfirmReport
    from billing.sinks.sync.calling.pusher import PushReport
    from billing.sinks.sync.calling.reports import ReportsReport
    from billing.sinks.sync.flushing import FlushReport
    from billing.sinks.sync.increment import Increment
    from billing.sinks.sync.planning.planner import PlanReport
    from billing.sinks.sync.resolving import ResolvedAs


def sync_plan(settings: Settings) -> PlanReport:
    """Plan all usage of linked clients that no increment carries yet. Nothing is sent."""
    from billing.sinks.stripe import wiring  # noqa: PLC0415 - see above

    return wiring.plan(runtime_for(settings))


def sync_flush(settings: Settings, client_id: str) -> FlushReport:
    """Plan and push one client's usage now, before its price changes or its subscription ends; say what is left.

    Usage that is still on its way into the log is not there to be flushed. Raises `UnknownClient`, and as `sync_push`.
    """
    from billing.sinks.stripe import wiring  # noqa: PLC0415

    check_client_id(client_id)
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        catalog.get_client(connection, client_id)
    return wiring.flush(runtime, client_id)


def sync_push(settings: Settings, *, client_id: str | None = None) -> PushReport:
    """Send what is planned, of one client only if one is named.

    Raises `Unreachable` or `Fatal` when Stripe, the key or every meter takes nothing.
    """
    from billing.sinks.stripe import wiring  # noqa: PLC0415

    return wiring.push(runtime_for(settings), client_id=client_id)


def sync_confirm(settings: Settings) -> ConfirmReport:
    """Confirm what Stripe's own summaries show of what was sent."""
    from billing.sinks.stripe import wiring  # noqa: PLC0415

    return wiring.confirm(runtime_for(settings))


def sync_errors(settings: Settings) -> ReportsReport:
    """Read what Stripe reported of events that it had taken and dropped. Raises as `sync_push`."""
    from billing.sinks.stripe import wiring  # noqa: PLC0415

    return wiring.read_reports(runtime_for(settings))


def sync_resolve(settings: Settings, increment_id: int, resolution: ResolvedAs, reason: str) -> Increment:
    """Say what becomes of an increment in doubt: `confirmed`, `resend` or `write-off`; return it. Safe to repeat.

    Raises `InvalidValue` for an unknown resolution, an empty reason or an unknown increment, and `Conflict` for an
    increment that finds its own way.
    """
    from billing.sinks.stripe import wiring  # noqa: PLC0415

    return wiring.resolve_increment(runtime_for(settings), increment_id, resolution, reason)


def sync_adopt(
    settings: Settings,
    client_id: str | None,
    reason: str,
    *,
    dry_run: bool = False,
    lag: timedelta = timedelta(hours=24),
    ours: bool = True,
) -> AdoptReport:
    """Take over what Stripe has of a client, or of all (None), and a restored database does not know. Safe to repeat.

    `ours` false: another system sent what is unknown here, and no usage is taken for it.
    Raises `InvalidValue` for an empty reason or a client without a customer, and `Conflict` as long as Stripe's sums
    may not show what it was told (`lag` after the latest call).
    """
    from billing.sinks.stripe import restored  # noqa: PLC0415

    return restored.adopt(runtime_for(settings), client_id, reason, dry_run=dry_run, lag=lag, ours=ours)


def sync_status(settings: Settings) -> SyncStatus:
    """Return how the report to Stripe stands."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        return read_status(connection, runtime.clock.now(), settings)


def sync_show(settings: Settings, increment_id: int) -> Story:
    """Return the whole story of an increment. Raises `InvalidValue` for one that is unknown."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        return read_story(connection, increment_id, runtime.clock.now())
