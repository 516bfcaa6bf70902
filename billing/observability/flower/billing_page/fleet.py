"""What the page of the whole fleet says of the latest reading: what is not well comes first. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Final

from billing.observability.doctor.finding import Finding, Verdict
from billing.observability.flower.billing_page.wording import age
from billing.observability.overview.values import FleetState

#: A reading that is older than so long is said to be old.
_OLD: Final = timedelta(seconds=60)
#: L9: increments in doubt on this page; the others have a page of their own.
DOUBTS_MAX: Final = 10
_ORDER: Final = {Verdict.FAIL: 0, Verdict.WARN: 1}


def values(state: FleetState | None, now: datetime) -> dict[str, Any]:
    """Return what the template has beside the reading itself."""
    if state is None:
        return {}
    return {
        "is_old": now - state.taken_at > _OLD,
        "concerns": concerns(state.findings),
        "well": [finding for finding in state.findings if finding.verdict is Verdict.OK],
        "hold_words": _holds(state),
        "queued": None if state.queues is None else sum(queue.events for queue in state.queues),
    }


def concerns(findings: Sequence[Finding]) -> Sequence[Finding]:
    """Return what is not well: what fails before what only warns, else in the doctor's order."""
    found = [finding for finding in findings if finding.verdict is not Verdict.OK]
    return sorted(found, key=lambda finding: _ORDER[finding.verdict])


def _holds(state: FleetState) -> str:
    if state.holds is None:
        return "Redis did not say"
    credits_ = "" if state.holds.credits is None else f"{state.holds.credits:,} credits"
    overdue = state.holds.overdue_seconds
    late = f"longest past its lease by {age(overdue)}" if overdue >= 1 else ""
    return ", ".join(filter(None, (credits_, late))) or "reservations of running tasks"
