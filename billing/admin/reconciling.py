"""Reconciliation: Redis, PostgreSQL and Stripe compared, to the unit."""

from __future__ import annotations

from collections.abc import Sequence

from billing.admin.access import runtime_for
from billing.core.settings import Settings
from billing.reconciliation import reconcile as reconciliation
from billing.reconciliation.continuous.status import Status, read_status
from billing.reconciliation.repair import repair as repairs
from billing.reconciliation.repair.repair import Plan, Repaired
from billing.reconciliation.report import Report


def reconcile(settings: Settings, client_ids: Sequence[str] | None = None, *, stripe: bool = True) -> Report:
    """Compare the books of some clients (None: of all) and keep the report; see `billing.reconciliation`.

    Raises `UnknownClient`, and `Unreachable` when Redis or PostgreSQL does not answer; a Stripe that does not answer is
    part of the report.
    """
    return reconciliation.reconcile(runtime_for(settings), client_ids=client_ids, stripe=stripe)


def reconciler_status(settings: Settings) -> Status:
    """Return how the continuous reconciler of the fulfillment worker stands. Raises `Unreachable`."""
    return read_status(runtime_for(settings))


def plan_repair(settings: Settings, client_ids: Sequence[str] | None = None, *, stripe: bool = True) -> Plan:
    """Compare as `reconcile` does, and return what would put right what differs; nothing is changed.

    Raises `UnknownClient` and `Unreachable`.
    """
    return repairs.plan_repair(runtime_for(settings), client_ids=client_ids, stripe=stripe)


def repair(settings: Settings, plan: Plan, *, made_by: str) -> Repaired:
    """Carry out a plan as far as it is still right, each posting recorded with who made it; see the table `repair`.

    Raises `Unreachable`, and `Retryable` if another repair is under way.
    """
    return repairs.repair(runtime_for(settings), plan, made_by=made_by)
