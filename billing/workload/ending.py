"""How a workload ends: its usage at Stripe, the laws, and how each client stands. Reads, and reports to Stripe."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from billing import admin
from billing.admin.reconciling import reconcile
from billing.core.settings import Settings
from billing.credits.values import Balance
from billing.reconciliation.report import Finding, Report
from billing.workload.progress import Steps
from billing.workload.standing import Standing
from billing.workload.stripe_report import StripeReport, report_usage, units_of


class Counts(Protocol):
    """How the tasks of one client have ended."""

    @property
    def succeeded(self) -> int:
        """Tasks that ended in a charge."""
        ...

    @property
    def refused(self) -> int:
        """Tasks that were refused for want of credits."""
        ...

    @property
    def failed(self) -> int:
        """Tasks that ended in another way."""
        ...


@dataclasses.dataclass(frozen=True, kw_only=True)
class Books:
    """Reconciliation's report, each client's standing, and what was reported to Stripe."""

    report: Report
    stripe: StripeReport
    standings: tuple[Standing, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ended:
    """The end of a run: its findings, laws and its own, and how each client stands."""

    findings: tuple[Finding, ...]
    standings: tuple[Standing, ...]

    @property
    def ok(self) -> bool:
        """Whether everything holds."""
        return all(found.holds for found in self.findings)


def close_books(settings: Settings, client_ids: Sequence[str], tallies: Mapping[str, Counts], steps: Steps) -> Books:
    """Report to Stripe, reconcile, and read how each client stands."""
    steps.begin("Stripe", "reporting what was used")
    # Clients that used nothing need no customer.
    totals = [found for found in admin.usage_totals(settings, client_ids) if found.spent]
    used = [found.client_id for found in totals]
    stripe = report_usage(settings, used)
    units, spent = sum(units_of(settings, used).values()), sum(found.spent for found in totals)
    equal = f"; Stripe's units equal logged units: {units:,}" if stripe.reached and units == spent else ""
    steps.say(stripe.text + equal)
    steps.begin("laws", "comparing Redis, PostgreSQL and Stripe")
    report = reconcile(settings, client_ids)
    return Books(report=report, stripe=stripe, standings=_standings(settings, client_ids, tallies, report))


def _standings(
    settings: Settings, client_ids: Sequence[str], tallies: Mapping[str, Counts], report: Report
) -> tuple[Standing, ...]:
    rows = {found.client_id: found.rows for found in admin.usage_totals(settings, client_ids)}
    units = units_of(settings, client_ids)

    def standing(client_id: str) -> Standing:
        # A report keeps the balances of ten thousand clients; the others are asked for.
        balance = report.balances.get(client_id) or admin.balance(settings, client_id)
        return Standing(
            name=client_id,
            **_money(balance),
            **_tasks(tallies.get(client_id)),
            usage_rows=rows.get(client_id, 0),
            stripe_units=units.get(client_id, 0),
        )

    return tuple(standing(client_id) for client_id in client_ids)


def _money(balance: Balance) -> dict[str, Any]:
    return {name: getattr(balance, name) for name in ("granted", "spent", "held", "available")}


def _tasks(counts: Counts | None) -> dict[str, Any]:
    if counts is None:
        return {}
    return {"succeeded": counts.succeeded, "rejected": counts.refused, "failed": counts.failed}
