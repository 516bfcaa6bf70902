"""Doctor's look at allowances and top-ups: what could not be granted, who is not asked. It says nothing of none."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Final

from sqlalchemy import text

from billing.connections import postgres
from billing.core.errors import NotMigrated, Unreachable
from billing.observability.doctor.finding import Finding, ok, warn
from billing.task.runtime import Runtime

#: A fulfillment worker asks within seconds.
_LATE: Final = timedelta(minutes=5)
_ALLOWANCES: Final = text("""
SELECT count(*) AS open, count(*) FILTER (WHERE failures > 0) AS put_off,
       coalesce(min(reason) FILTER (WHERE failures > 0), '') AS reason
FROM grant_schedule WHERE state = 'open'
""")
_TOP_UPS: Final = text("""
SELECT (SELECT count(*) FROM top_up_rule) AS rules,
       count(*) FILTER (WHERE state = 'wanted') AS wanted,
       count(*) FILTER (WHERE state = 'wanted' AND created_at < :late) AS late,
       count(*) FILTER (WHERE state = 'asked') AS asked,
       count(*) FILTER (WHERE answer = 'granted') AS paid,
       coalesce(min(reason) FILTER (WHERE answer = 'granted'), '') AS reason
FROM top_up_request WHERE state IN ('wanted', 'asked')
""")


def examine_allowances(runtime: Runtime) -> Iterator[Finding]:
    """Check what stands in the tables."""
    try:
        with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
            granted = connection.execute(_ALLOWANCES).one()
            asked = connection.execute(_TOP_UPS, {"late": runtime.clock.now() - _LATE}).one()
    except (Unreachable, NotMigrated):
        return  # that is PostgreSQL's own finding
    if granted.put_off:
        seen = f"{granted.put_off} of {granted.open} are due and not granted ({granted.reason})"
        yield warn("allowances", seen, "see: billing allowance list")
    elif granted.open:
        yield ok("allowances", f"{granted.open} open, none put off")
    if not asked.rules and not asked.wanted and not asked.asked:
        return
    if asked.paid:
        yield warn(
            "top-ups", f"{asked.paid} are paid for and not granted ({asked.reason})", "mend it: they are tried on"
        )
    seen = f"{asked.rules} rules, {asked.wanted} requests to be asked, {asked.asked} without an answer yet"
    if not runtime.settings.top_up_hook:
        yield warn("top-ups", f"{seen}; nobody is asked", "set billing_top_up_hook")
    elif asked.late:
        advice = "start a worker with --fulfillment; its log says what keeps it from asking"
        yield warn("top-ups", f"{asked.late} requests wait to be asked for minutes", advice)
    else:
        yield ok("top-ups", seen)
