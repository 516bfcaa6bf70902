"""Repairs what reconciliation finds: plans from a confirmed comparison, then posts exactly that, recorded.

A plan is made of what differs now; it is carried out only as far as a second comparison, under the lock of repairs,
asks for the same. Between the two a person may think. What lies within PostgreSQL or at Stripe is never repaired: the
plan says what to do. Safe while the fleet works, and a second repair finds nothing to do.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from sqlalchemy import text

from billing.connections import postgres
from billing.core.errors import Retryable
from billing.reconciliation.reconcile import reconcile
from billing.reconciliation.repair import records
from billing.reconciliation.repair.advice import ADVICE, IN_DOUBT, OF_BUCKETS
from billing.reconciliation.repair.confirming import Confirming
from billing.reconciliation.repair.corrections import Correction
from billing.reconciliation.report import Discrepancy, Law, Report
from billing.recovery.postings import apply_postings
from billing.task.runtime import Runtime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What is not repaired, and why, or what a person must do."""

    client_id: str | None
    found: str
    why: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What differs, what would be posted or rebuilt, and what is left to a person."""

    report: Report
    corrections: tuple[Correction, ...]
    left: tuple[Left, ...]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Repaired:
    """What was done. `left` has what was not, that of the plan included."""

    run_id: int
    posted: tuple[Correction, ...]
    rebuilds: tuple[Correction, ...]
    left: tuple[Left, ...]

    @property
    def ok(self) -> bool:
        """Whether everything that differed is right now. What waits for a rebuild is not yet."""
        return not (self.rebuilds or self.left)


def plan_repair(
    runtime: Runtime,
    *,
    client_ids: Sequence[str] | None = None,
    stripe: bool = True,
    wait: Callable[[float], object] | None = None,
) -> Plan:
    """Compare some clients (None: all), and return what would put right what differs. Writes no more than its report.

    Raises `UnknownClient`, and `Unreachable`.
    """
    report = reconcile(runtime, client_ids=client_ids, stripe=stripe, wait=wait)
    doubted = {found.client_id for found in report.discrepancies if found.law in IN_DOUBT}
    suspects = {found.client_id for found in report.discrepancies if found.client_id and found.law in OF_BUCKETS}
    confirmed = Confirming(runtime, wait=wait).corrections(sorted(suspects - doubted))
    corrections = []
    left = [_advised(one) for one in report.discrepancies if one.law not in OF_BUCKETS or one.client_id in doubted]
    for made in confirmed.values():
        if made.doubt is not None:
            left.append(Left(client_id=made.client_id, found=made.doubt, why=ADVICE[Law.GRANTS.value]))
        elif made.asked is not None:
            left.append(Left(client_id=made.client_id, found="its shard waits for a rebuild already", why=made.asked))
        elif made.unknown is not None:
            left.append(Left(client_id=made.client_id, found="differs, and is not confirmed", why=made.unknown))
        elif not made.is_nothing:
            corrections.append(made)
    unnamed = sum(law.discrepancies for law in report.laws) - len(report.discrepancies)
    if unnamed:
        left.append(Left(client_id=None, found=f"{unnamed:,} further discrepancies", why="repair again: they are next"))
    for law in report.laws:
        left += [Left(client_id=None, found=law.law, why=f"not compared: {why}") for why in law.not_compared]
    return Plan(report=report, corrections=tuple(corrections), left=tuple(left))


def repair(runtime: Runtime, plan: Plan, *, made_by: str, wait: Callable[[float], object] | None = None) -> Repaired:
    """Carry out a plan, as far as it is still right. Raises `Retryable` if another repair is under way."""
    settings = runtime.settings
    run_id = plan.report.run_id or 0
    posted, rebuilds, left = [], [], list(plan.left)
    with postgres.reaching(settings), runtime.engine.begin() as leader:
        if not records.try_repair(leader):
            message = "reconcile: --repair: another repair is under way"
            raise Retryable(message)
        leader.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
        fresh = Confirming(runtime, wait=wait).corrections([made.client_id for made in plan.corrections])
        for planned in plan.corrections:
            made = fresh[planned.client_id]
            if made.is_nothing:
                continue
            if made != planned or not _written(runtime, run_id, made, made_by):
                left.append(Left(client_id=made.client_id, found="has changed since it was shown", why="repair again"))
            elif made.rebuild is None:
                posted.append(made)
            else:
                rebuilds.append(made)
        if posted:
            apply_postings(runtime)
        left += _not_applied(runtime, posted)
    return Repaired(run_id=run_id, posted=tuple(posted), rebuilds=tuple(rebuilds), left=tuple(left))


def _written(runtime: Runtime, run_id: int, made: Correction, made_by: str) -> bool:
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        return records.write(connection, run_id, made, made_by)


def _not_applied(runtime: Runtime, posted: Sequence[Correction]) -> list[Left]:
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        waiting = [made.client_id for made in posted if not records.is_applied(connection, made.client_id)]
    why = "its bucket has not taken the posting yet: a worker with --fulfillment brings it, or rebuilds the shard"
    return [Left(client_id=client_id, found="is posted", why=why) for client_id in waiting]


def _advised(found: Discrepancy) -> Left:
    why = ADVICE.get(found.law) if found.law not in OF_BUCKETS else "nothing is posted while the log is in doubt"
    return Left(client_id=found.client_id, found=found.text, why=why or "")
