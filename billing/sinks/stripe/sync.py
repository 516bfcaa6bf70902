"""Puts planner, pusher and confirmer together for a runtime: what the commands and beat's tasks call."""

from __future__ import annotations

from billing.connections import postgres
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.keys import key_kind
from billing.sinks.sync.confirmer import Confirmer, ConfirmReport
from billing.sinks.sync.planner import Planner, PlanReport
from billing.sinks.sync.pusher import Pusher, PushReport
from billing.task.runtime import Runtime


def plan(runtime: Runtime) -> PlanReport:
    """Plan all usage of linked clients that no increment carries yet. Nothing is sent."""
    with postgres.reaching(runtime.settings):
        return Planner(runtime.engine, runtime.clock, event_name=runtime.settings.stripe_meter).plan()


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
