"""Puts planner, pusher and confirmer together for a runtime: what the commands and beat's tasks call."""

from __future__ import annotations

from datetime import timedelta

from billing.connections import postgres
from billing.core.settings import Settings
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.keys import key_kind
from billing.sinks.sync.confirmer import Confirmer, ConfirmReport
from billing.sinks.sync.planner import Planner, PlanReport, PlanRules
from billing.sinks.sync.postgres_planning import PostgresPlanningLog
from billing.sinks.sync.pusher import Pusher, PushReport
from billing.task.runtime import Runtime


def rules(settings: Settings) -> PlanRules:
    """Return what the settings say of a plan."""
    return PlanRules(
        meter=settings.stripe_meter,
        late_usage=settings.stripe_late_usage,
        grace=timedelta(hours=settings.stripe_grace_hours),
        calendar=settings.stripe_periods == "calendar",
    )


def planner(runtime: Runtime) -> Planner:
    """Return a planner on the database."""
    return Planner(PostgresPlanningLog(runtime.engine), runtime.clock, rules(runtime.settings))


def plan(runtime: Runtime) -> PlanReport:
    """Plan all usage of linked clients that no increment carries yet. Nothing is sent."""
    with postgres.reaching(runtime.settings):
        return planner(runtime).plan()


def push(runtime: Runtime) -> PushReport:
    """Send what is planned, at most `billing_stripe_push_batch` increments."""
    settings = runtime.settings
    pusher = Pusher(
        runtime.engine,
        runtime.clock,
        lambda: Gateway(settings),
        event_name=settings.stripe_meter,
        books=key_kind(settings),
    )
    with postgres.reaching(settings):
        return pusher.push(most=settings.stripe_push_batch)


def confirm(runtime: Runtime) -> ConfirmReport:
    """Confirm what Stripe's summaries show."""
    settings = runtime.settings
    confirmer = Confirmer(
        runtime.engine,
        runtime.clock,
        lambda: Gateway(settings),
        event_name=settings.stripe_meter,
        books=key_kind(settings),
    )
    with postgres.reaching(settings):
        return confirmer.confirm()
