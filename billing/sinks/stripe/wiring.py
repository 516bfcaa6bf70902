"""Puts planner, pusher, confirmer and reports together for a runtime: what the commands and beat's tasks call."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta

from billing.connections import postgres
from billing.core.settings import Settings
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.keys import key_kind
from billing.sinks.stripe.period_reader import StripePeriods
from billing.sinks.stripe.rates import reads_budget, turn_to_read
from billing.sinks.stripe.restored import check_books, guard, hold_back
from billing.sinks.sync import flushing
from billing.sinks.sync.calling.budget import EVENTS, PostgresBudget
from billing.sinks.sync.calling.confirmer import Confirmer, ConfirmReport
from billing.sinks.sync.calling.pusher import Pusher, PushReport
from billing.sinks.sync.calling.reports import Reports, ReportsReport
from billing.sinks.sync.flushing import FlushReport
from billing.sinks.sync.increment import Increment
from billing.sinks.sync.planning.planner import Planner, PlanReport, PlanRules
from billing.sinks.sync.postgres.log import PostgresLog
from billing.sinks.sync.resolving import Resolution, ResolvedAs, resolve
from billing.sinks.sync.same_time import check_clock
from billing.sinks.sync.telling.left import Left, read_left
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
    """Plan all usage of linked clients that no increment carries yet. Nothing is sent."""
    with postgres.reaching(runtime.settings):
        check_clock(runtime.engine, runtime.clock)
        check_books(runtime)
        held = hold_back(runtime)
    with postgres.reaching(runtime.settings), _planner(runtime, held) as planner:
        return planner.plan()


def close(runtime: Runtime) -> PlanReport:
    """Plan what was used in periods that are over and not closed yet. Nothing is read from Stripe, nothing sent."""
    planner = Planner(PostgresLog(runtime.engine), runtime.clock, plan_rules(runtime.settings))
    with postgres.reaching(runtime.settings):
        check_clock(runtime.engine, runtime.clock)
        check_books(runtime)
        return planner.close()


def push(runtime: Runtime, *, client_id: str | None = None) -> PushReport:
    """Send what is planned, at most `billing_stripe_push_batch` increments; of one client only if one is named."""
    with postgres.reaching(runtime.settings):
        check_clock(runtime.engine, runtime.clock)
        check_books(runtime)
        return _pusher(runtime).push(most=runtime.settings.stripe_push_batch, client_id=client_id)


def flush(runtime: Runtime, client_id: str) -> FlushReport:
    """Plan and push one client's usage now, and say what is left."""
    settings = runtime.settings

    def left() -> Left:
        with runtime.engine.connect() as connection:
            return read_left(connection, client_id, meter=settings.stripe_meter)

    with postgres.reaching(settings):
        check_clock(runtime.engine, runtime.clock)
        check_books(runtime)
        held = hold_back(runtime, client_id)
    with postgres.reaching(settings), _planner(runtime, held) as planner:
        most = settings.stripe_push_batch
        return flushing.flush(client_id, planner, _pusher(runtime), left, runtime.clock, time.sleep, most=most)


def confirm(runtime: Runtime) -> ConfirmReport:
    """Confirm what Stripe's summaries show."""
    settings = runtime.settings
    confirmer = Confirmer(
        PostgresLog(runtime.engine),
        runtime.clock,
        lambda: Gateway(settings),
        books=key_kind(settings).value,
        reads=reads_budget(runtime),
    )
    with postgres.reaching(settings):
        check_clock(runtime.engine, runtime.clock)
        return confirmer.confirm()


def read_reports(runtime: Runtime) -> ReportsReport:
    """Read what Stripe reported of events that it had taken and dropped."""
    settings = runtime.settings
    log = PostgresLog(runtime.engine)
    with postgres.reaching(settings):
        # An event that the list leaves out is a call of its own, for which a turn is due as well.
        turn = turn_to_read(runtime, "error reports")
        return Reports(log, runtime.clock, lambda: Gateway(settings, turn=turn), reads=reads_budget(runtime)).read()


def resolve_increment(runtime: Runtime, increment_id: int, resolved_as: ResolvedAs, reason: str) -> Increment:
    """Resolve an increment as a person says. Raises as `resolving.resolve`."""
    said = Resolution(resolved_as=resolved_as, reason=reason, resolved_at=runtime.clock.now())
    with postgres.reaching(runtime.settings):
        return resolve(PostgresLog(runtime.engine), increment_id, said)


@contextmanager
def _planner(runtime: Runtime, held: Mapping[tuple[str, str], str]) -> Iterator[Planner]:
    """Yield a planner, and close what it read periods from; each of its calls waits for its turn."""
    settings, rules = runtime.settings, plan_rules(runtime.settings)
    turn = turn_to_read(runtime, "billing periods")
    source = None if rules.calendar else StripePeriods(settings, grace=rules.grace, turn=turn)
    try:
        yield Planner(PostgresLog(runtime.engine), runtime.clock, rules, source=source, held=held)
    finally:
        if source is not None:
            source.close()


def _pusher(runtime: Runtime) -> Pusher:
    settings = runtime.settings
    return Pusher(
        PostgresLog(runtime.engine),
        runtime.clock,
        lambda: Gateway(settings),
        books=key_kind(settings).value,
        events=PostgresBudget(runtime.engine, EVENTS, per_second=settings.stripe_calls_per_second),
        reads=reads_budget(runtime),
        guard=guard(runtime),
    )
