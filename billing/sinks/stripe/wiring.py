"""Puts planner, pusher, confirmer and reports together for a runtime: what the commands and beat's tasks call."""

from __future__ import annotations

import time
from datetime import timedelta

from billing.connections import postgres
from billing.core.errors import Unreachable
from billing.core.settings import Settings
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.keys import key_kind
from billing.sinks.stripe.period_reader import StripePeriods
from billing.sinks.sync.budget import EVENTS, READS, READS_PER_SECOND, PostgresBudget, await_turn
from billing.sinks.sync.confirmer import Confirmer, ConfirmReport
from billing.sinks.sync.increment import Increment
from billing.sinks.sync.planner import Planner, PlanReport, PlanRules
from billing.sinks.sync.postgres_log import PostgresLog
from billing.sinks.sync.pusher import Pusher, PushReport
from billing.sinks.sync.reports import Reports, ReportsReport
from billing.sinks.sync.resolving import Resolution, ResolvedAs, resolve
from billing.task.runtime import Runtime


def plan_rules(settings: Settings) -> PlanRules:
    """Return what the settings say of a plan."""
    return PlanRules(
        meter=settings.stripe_meter,
        late_usage=settings.stripe_late_usage,
        grace=timedelta(hours=settings.stripe_grace_hours),
        calendar=settings.stripe_periods == "calendar",
    )


def plan(runtime: Runtime) -> PlanReport:
    """Plan all usage of linked clients that no increment carries yet. Nothing is sent; periods are read."""
    rules = plan_rules(runtime.settings)
    source = None if rules.calendar else _periods(runtime)
    try:
        with postgres.reaching(runtime.settings):
            return Planner(PostgresLog(runtime.engine), runtime.clock, rules, source=source).plan()
    finally:
        if source is not None:
            source.close()


def push(runtime: Runtime, *, client_id: str | None = None) -> PushReport:
    """Send what is planned, at most `billing_stripe_push_batch` increments; of one client only if one is named."""
    settings = runtime.settings
    pusher = Pusher(
        PostgresLog(runtime.engine),
        runtime.clock,
        lambda: Gateway(settings),
        books=key_kind(settings).value,
        events=PostgresBudget(runtime.engine, EVENTS, per_second=settings.stripe_calls_per_second),
        reads=_reads(runtime),
    )
    with postgres.reaching(settings):
        return pusher.push(most=settings.stripe_push_batch, client_id=client_id)


def confirm(runtime: Runtime) -> ConfirmReport:
    """Confirm what Stripe's summaries show."""
    settings = runtime.settings
    confirmer = Confirmer(
        PostgresLog(runtime.engine),
        runtime.clock,
        lambda: Gateway(settings),
        books=key_kind(settings).value,
        reads=_reads(runtime),
    )
    with postgres.reaching(settings):
        return confirmer.confirm()


def read_reports(runtime: Runtime) -> ReportsReport:
    """Read what Stripe reported of events that it had taken and dropped."""
    settings = runtime.settings
    log = PostgresLog(runtime.engine)
    with postgres.reaching(settings):
        return Reports(log, runtime.clock, lambda: Gateway(settings), reads=_reads(runtime)).read()


def resolve_increment(runtime: Runtime, increment_id: int, resolved_as: ResolvedAs, reason: str) -> Increment:
    """Resolve an increment as a person says. Raises as `resolving.resolve`."""
    said = Resolution(resolved_as=resolved_as, reason=reason, resolved_at=runtime.clock.now())
    with postgres.reaching(runtime.settings):
        return resolve(PostgresLog(runtime.engine), increment_id, said)


def _periods(runtime: Runtime) -> StripePeriods:
    """Return the period source; each of its calls waits for its turn."""
    reads = _reads(runtime)

    def turn() -> None:
        if not await_turn(reads, runtime.clock, time.sleep):
            raise Unreachable("Stripe: no turn to read billing periods: this machine is too slow for the fleet's rate")

    grace = timedelta(hours=runtime.settings.stripe_grace_hours)
    return StripePeriods(runtime.settings, grace=grace, turn=turn)


def _reads(runtime: Runtime) -> PostgresBudget:
    return PostgresBudget(runtime.engine, READS, per_second=READS_PER_SECOND)
