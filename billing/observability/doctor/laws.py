"""The doctor's look at the laws: which did not hold when it was last checked, and which was not checked for long."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from billing.connections import postgres
from billing.observability.doctor.finding import Finding, fail, ok, warn
from billing.observability.doctor.reconciliation import AGE_MAX
from billing.observability.laws.check import LAWS
from billing.observability.laws.law import Checked
from billing.observability.laws.reading import read_laws
from billing.observability.liveness.judging import told
from billing.task.runtime import Runtime

_PART: Final = "laws"
#: Beat has them checked every quarter of an hour: three of them were missed.
OWN_AGE_MAX: Final = timedelta(minutes=45)
_OWN: Final = frozenset(law.name for law in LAWS)
_BEAT: Final = "see whether beat and a worker of billing.maintenance run; or call the task {task}"

#: What to do about a law that does not hold.
_ADVICE: Final = {
    "L1 ceiling": "run: billing rebuild CLIENT; find out who else writes to billing's Redis",
    "L7 append only": "run: billing migrate, which makes a trigger anew; bring lost rows back from a backup",
    "L9 liveness": "the other parts say what stands still: liveness, broker, Stripe, PostgreSQL",
}
_RECONCILE: Final = "run: billing reconcile; it names every row, and --repair mends what it can"


def examine_laws(runtime: Runtime) -> Iterator[Finding]:
    """Say which laws do not hold, and which nobody has checked lately."""
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        laws = read_laws(connection)
    now, never, late, hold = runtime.clock.now(), list[str](), list[tuple[str, datetime]](), 0
    for name, checked in laws.items():
        if checked is None:
            never.append(name)
            continue
        if checked.violations:
            yield _broken(checked, now)
        elif now - checked.checked_at > (OWN_AGE_MAX if name in _OWN else AGE_MAX):
            late.append((name, checked.checked_at))
        else:
            hold += 1
    for name, checked_at in late:
        seen = f"{name} held, and was last checked {told((now - checked_at).total_seconds())} ago"
        yield warn(_PART, seen, _BEAT.format(task=_task_of(name)))
    if never:
        yield warn(_PART, f"never checked: {', '.join(never)}", _BEAT.format(task=_task_of(never[-1])))
    if hold:
        yield ok(_PART, f"{hold} laws held when they were last checked")


def _broken(checked: Checked, now: datetime) -> Finding:
    ago = told(max(0.0, (now - checked.checked_at).total_seconds()))
    seen = f"{checked.law}: {checked.violations:,} violations, {ago} ago: {checked.found}"
    return fail(_PART, seen, _ADVICE.get(checked.law, _RECONCILE))


def _task_of(name: str) -> str:
    return "billing.laws.check" if name in _OWN else "billing.reconcile.run"
