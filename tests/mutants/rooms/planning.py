"""Faults of the plan of the sync: whole units, names that cover the payload, periods, own minutes."""

from __future__ import annotations

from typing import Final

from tests.mutants.fault import faults
from tests.mutants.mutant import Mutant

_HERE: Final = "billing/sinks/sync/"
_LOG: Final = "tests/contract/increments/test_log.py"
_DIFFERENTIAL: Final = "tests/contract/increments/test_differential.py"
_PLANNER: Final = "tests/integration/test_sync_planner.py"
_drafts = faults(_HERE + "planning/drafts.py", "tests/unit/test_sync_drafts.py")
_minutes = faults(_HERE + "planning/minutes.py", "tests/unit/test_sync_periods.py")
_stamping = faults(_HERE + "planning/stamping.py", "tests/unit/test_sync_stamping.py")
_periods = faults(_HERE + "planning/periods.py", "tests/unit/test_sync_periods.py")
_plan = faults(_HERE + "postgres/plan_statements.py", _PLANNER)
_payload = faults("billing/schema/migrations/versions/0020_sync_protocol.py", _PLANNER, _LOG)

PLANNER: Final[tuple[Mutant, ...]] = (
    _drafts("the next generation has the name of the one before", "L8", '    "generation",\n', ""),
    _drafts("another amount has the same name", "L8", '    "units",\n', ""),
    _drafts(
        "what is less than a unit is rounded up",
        "L8",
        "units = sum(row.left for row in rows) // each",
        "units = -(-sum(row.left for row in rows) // each)",
    ),
    _drafts(
        "what was returned is not taken off", "L8", "some * each - sum(part.credits for part in parts)", "some * each"
    ),
    _drafts(
        "an increment may be of more units than Stripe takes",
        "L8 L9",
        "some = min(units, UNITS_MAX)",
        "some = units",
        "tests/unit/test_sync_drafts.py",
        _PLANNER,
    ),
    _drafts(
        "the same credits are carried twice",
        "L8",
        "parts.append(Part(sku=row.sku, hour=row.hour, credits_from=at,",
        "parts.append(Part(sku=row.sku, hour=row.hour, credits_from=row.planned,",
    ),
    _drafts(
        "what a period left is not carried on",
        "L8",
        "group = sorted([*carried, *placed[place]],",
        "group = sorted([*placed[place]],",
    ),
    _minutes(
        "a stamp is of the minute after its period", "L8", "_floor(end) - MINUTE) + _HALF", "_floor(end)) + _HALF"
    ),
    _minutes("a stamp is in the future", "L8", "_floor(now - _HALF)", "_floor(now + MINUTE)"),
    _minutes("two increments share a minute", "L8", "        if minute not in taken:\n", "        if True:\n"),
    _stamping("increments of one plan share a minute", "L8", "taken | own,", "taken,"),
    _stamping(
        "a minute that was not looked at is free",
        "L8",
        "first = max(first, min(taken)) if cut else first",
        "first = first",
    ),
    _periods(
        "usage of the last hour belongs to the next period",
        "L8",
        "return period if hour < period.usage_end else None",
        "return period if hour < period.usage_end - HOUR else None",
    ),
    _periods(
        "a period is open when its invoice is final",
        "L8",
        "return self.closes_at is None or now < self.closes_at",
        "return self.closes_at is None or now <= self.closes_at + HOUR",
    ),
    _plan(
        "two planners plan the same credits",
        "L8",
        "FOR NO KEY UPDATE OF rollup\n",
        "",
        _PLANNER,
        "tests/integration/test_sync_planner_ends.py",
        "tests/simulation/sync/test_mutants.py",
        explained="",
    ),
    _plan(
        "two planners lead at once",
        "L8",
        "pg_try_advisory_xact_lock({int(Guard.STRIPE_PLAN)}, 0)",
        "{int(Guard.STRIPE_PLAN)} > 0",
    ),
    _plan(
        "what is planned is written over",
        "L8",
        "SET planned = rollup.planned + advanced.units,",
        "SET planned = advanced.units,",
    ),
    _plan(
        "the minute of a generation that was given up is given again",
        "L8",
        "AND earlier.generation < later.generation AND earlier.customer_id",
        "AND earlier.generation < 0 AND earlier.customer_id",
        _DIFFERENTIAL,
        "tests/integration/test_sync_reissues.py",
        _LOG,
    ),
    _payload(
        "what an increment carries can be changed",
        "L7 L8",
        "            RAISE EXCEPTION 'stripe_increment: the payload of increment % is written once', OLD.increment_id;\n",
        "            NULL;\n",
    ),
)
