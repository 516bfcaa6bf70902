"""What reconciliation has found, by law: the hourly one, and the continuous one, whichever looked last at all clients.

Nothing is compared here: their own rows are read, and a law's row in `law_check` follows them when they change. What
the continuous reconciler says to stand counts at once, and is gone when it says so.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from billing.connections import postgres
from billing.observability.laws import recording
from billing.observability.laws.law import FOUND_MAX, Checked
from billing.reconciliation.continuous import keeping
from billing.reconciliation.report import Law
from billing.task.runtime import Runtime

#: Laws of which the continuous reconciler compares all that the hourly one does. Its sums are not all of L7.
_WHOLLY_CONTINUOUS: Final = frozenset({Law.BUCKET, Law.HOLDS, Law.ORPHANS, Law.GRANTS, Law.SPENT})
#: Runs of one way around all clients that are added up (L9): an hourly run that runs out of time is gone on with.
_RUNS_MAX: Final = 100

#: The hourly runs since the last way around but one had ended: one run, unless it needs several.
_RUNS: Final = text("""
SELECT run_id, finished_at, clients, laws FROM reconciliation_run
WHERE finished_at IS NOT NULL AND whole AND laws @> CAST(:stripe AS jsonb) AND run_id > coalesce((
    SELECT run_id FROM reconciliation_run
    WHERE finished_at IS NOT NULL AND whole AND laws @> CAST(:stripe AS jsonb) AND resume_after IS NULL
    ORDER BY run_id DESC OFFSET 1 LIMIT 1), 0)
ORDER BY run_id DESC LIMIT :most
""")
#: What a run has found of a law first.
_FOUND: Final = text("""
SELECT coalesce('client ' || client_id || ': ', '') || found FROM discrepancy
WHERE run_id = ANY(:runs) AND law = :law AND closes IS NULL ORDER BY discrepancy_id DESC LIMIT 1
""")
_STRIPE: Final = f'[{{"law": "{Law.STRIPE.value}"}}]'


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """How a law came out. `checked_at` is when that was known, not when it was read."""

    law: str
    checked_at: datetime
    examined: int
    violations: int
    found: str


def read_compared(connection: Connection) -> list[Verdict]:
    """Return how each law of reconciliation stands. A law that was never compared is not named."""
    runs = connection.execute(_RUNS, {"stripe": _STRIPE, "most": _RUNS_MAX}).all()
    place = keeping.place_of(connection)
    last_pass: Any = place.last_pass if place is not None else {}
    passed_at = datetime.fromisoformat(last_pass["finished_at"]) if last_pass else None
    stands: dict[str, list[str]] = {}
    for one in keeping.standing(connection):
        stands.setdefault(one.thing.law, []).append(f"client {one.thing.client_id}: {one.found}")
    found = []
    for law in Law:
        standing = stands.get(law.value, [])
        hourly = _hourly(connection, law, runs)
        if standing and place is not None:
            violations, text_ = len(standing), standing[0]
            at = max(filter(None, (passed_at, place.started_at)))
            examined = int(last_pass["clients"]) if last_pass else place.clients
        elif passed_at is not None and law in _WHOLLY_CONTINUOUS and (hourly is None or passed_at > hourly.checked_at):
            at, examined, violations, text_ = passed_at, int(last_pass["clients"]), 0, ""
        elif hourly is not None:
            at, examined, violations, text_ = hourly.checked_at, hourly.examined, hourly.violations, hourly.found
        else:
            continue
        # Cut as the table has it, or it would seem to change at every look.
        cut = " ".join(text_.split())[:FOUND_MAX]
        found.append(Verdict(law=law.value, checked_at=at, examined=examined, violations=violations, found=cut))
    return found


def note_compared(runtime: Runtime) -> int:
    """Bring `law_check` to what reconciliation has found; return how many laws' rows changed. Raises `Unreachable`."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        verdicts, before = read_compared(connection), recording.read(connection)
    changed = 0
    for verdict in verdicts:
        if verdict == _of(before.get(verdict.law)):
            continue
        changed += _note(runtime, verdict)
    return changed


def _hourly(connection: Connection, law: Law, runs: Any) -> Verdict | None:
    reports = [(run, one) for run in runs for one in run.laws if one["law"] == law.value]
    if not reports:
        return None
    violations = sum(one["discrepancies"] for _, one in reports)
    given = {"runs": [run.run_id for run, one in reports if one["discrepancies"]], "law": law.value}
    found = connection.execute(_FOUND, given).scalar() if violations else ""
    run, _ = reports[0]
    return Verdict(
        law=law.value, checked_at=run.finished_at, examined=run.clients, violations=violations, found=found or ""
    )


def _note(runtime: Runtime, verdict: Verdict) -> bool:
    wanted = Checked(
        law=verdict.law,
        checked_at=verdict.checked_at,
        examined=verdict.examined,
        violations=verdict.violations,
        found=verdict.found,
    )

    def change(before: Checked | None) -> Checked | None:
        # Another worker may have read later, and have written first.
        return None if before and before.checked_at > wanted.checked_at else wanted

    return recording.write(runtime, verdict.law, change) is not None


def _of(checked: Checked | None) -> Verdict | None:
    if checked is None:
        return None
    return Verdict(
        law=checked.law,
        checked_at=checked.checked_at,
        examined=checked.examined,
        violations=checked.violations,
        found=checked.found,
    )
