"""How each law's last check came out, by whichever looked last: a reconciliation, the continuous one, or beat's slices.

Every law that is checked is told, also one that nobody has looked at yet.
"""

from __future__ import annotations

import collections
from collections.abc import Iterator, Mapping
from datetime import datetime
from typing import Any, Final

from sqlalchemy import Connection, text

from billing.observability.metrics.catalogue import CHECKED
from billing.observability.overview.values import LawState
from billing.reconciliation.continuous import keeping
from billing.reconciliation.report import Law, Verdict

#: Reconciliations that are looked through for one that checked a law; one without Stripe leaves some out.
_RUNS_MAX: Final = 50
#: What each pass of the continuous reconciler compares; the sums of the log come round less often.
_OF_PASSES: Final = (Law.BUCKET, Law.HOLDS, Law.GRANTS, Law.SPENT, Law.ORPHANS)

_RUNS: Final = text(f"""
SELECT run_id, finished_at, clients, laws FROM reconciliation_run
WHERE finished_at IS NOT NULL AND whole ORDER BY run_id DESC LIMIT {_RUNS_MAX}
""")  # noqa: S608 - a constant number
_FIRST_FOUND: Final = text("""
SELECT DISTINCT ON (law) law, found FROM discrepancy
WHERE run_id = ANY(CAST(:runs AS bigint[])) AND closes IS NULL ORDER BY law, run_id DESC, discrepancy_id
""")
_CHECKS: Final = text("SELECT law, checked_at, examined, violations, found FROM law_check")


def read_laws(connection: Connection) -> tuple[LawState, ...]:
    """Return every law with its last check."""
    latest = {law: LawState(law=law, checked_at=None, examined=0, violations=0, found="") for law in CHECKED}
    for found in (*_of_runs(connection), *_of_passes(connection), *_of_slices(connection)):
        known = latest.get(found.law)
        if known is None or known.checked_at is None or (found.checked_at or known.checked_at) > known.checked_at:
            latest[found.law] = found
    return tuple(latest.values())


def _of_runs(connection: Connection) -> Iterator[LawState]:
    runs: dict[str, tuple[Any, Mapping[str, Any]]] = {}
    for run in connection.execute(_RUNS):
        for law in run.laws:
            runs.setdefault(law["law"], (run, law))
    broken = {run.run_id for run, law in runs.values() if law["discrepancies"]}
    told = {row.law: row.found for row in connection.execute(_FIRST_FOUND, {"runs": sorted(broken)})} if broken else {}
    for name, (run, law) in runs.items():
        yield LawState(
            law=name,
            checked_at=run.finished_at,
            examined=run.clients,
            violations=law["discrepancies"],
            found=told.get(name, "") if law["discrepancies"] else _not_compared(law),
        )


def _not_compared(law: Mapping[str, Any]) -> str:
    if law["verdict"] != Verdict.NOT_COMPARED.value:
        return ""
    return "not compared: " + ", ".join(f"{count:,} ({reason})" for reason, count in law["not_compared"].items())


def _of_passes(connection: Connection) -> Iterator[LawState]:
    place = keeping.place_of(connection)
    if place is None or not place.last_pass:
        return
    standing = keeping.standing(connection)
    counts = collections.Counter(one.thing.law for one in standing)
    first = {one.thing.law: one.found for one in reversed(standing)}
    ended, sums_at = place.last_pass["finished_at"], place.last_pass["sums_at"]
    for law, checked_at in (*((law, ended) for law in _OF_PASSES), (Law.SUMS, sums_at)):
        if checked_at is not None:
            yield LawState(
                law=law.value,
                checked_at=datetime.fromisoformat(checked_at),
                examined=place.last_pass["clients"],
                violations=counts[law.value],
                found=first.get(law.value, ""),
            )


def _of_slices(connection: Connection) -> Iterator[LawState]:
    for row in connection.execute(_CHECKS).mappings():
        yield LawState(**row)
