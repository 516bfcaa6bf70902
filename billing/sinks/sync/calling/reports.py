"""Reads what the sink reports of calls that it had answered, and drops what it dropped: it is not on the invoice (L8).

Reports are read from a while before the latest known one, so that a run that is killed, doubled or late loses none:
each is kept once, and says the same of its increments each time.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Final

from billing.core.clock import Clock
from billing.sinks.sink import ErrorReport, MeterSink
from billing.sinks.sync import afterwards
from billing.sinks.sync.calling.budget import Budget, Wait, await_turn
from billing.sinks.sync.increment import State
from billing.sinks.sync.log import IncrementLog

#: How far before the latest known report the next run begins: reports may come in another order than their windows.
OVERLAP: Final = timedelta(hours=2)
#: How long Stripe keeps such events.
KEPT_FOR: Final = timedelta(days=30)
#: Bounds of one run (L9). A page of reports has a hundred; each page is a call.
MOST: Final = 10_000
SECONDS: Final = 120.0
_PAGE: Final = 100


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ReportsReport:
    """What was read. `unmatched` reports are about calls that they do not name; `more`: there may be more to read."""

    read: int = 0
    rejected: int = 0
    quarantined: int = 0
    unmatched: int = 0
    more: bool = False


class Reports:
    """Reads a sink's error reports into an increment log."""

    def __init__(
        self,
        log: IncrementLog,
        clock: Clock,
        open_sink: Callable[[], MeterSink],
        *,
        reads: Budget | None = None,
        wait: Wait = time.sleep,
    ) -> None:
        self._log, self._clock, self._open_sink, self._reads, self._wait = log, clock, open_sink, reads, wait

    def read(self, *, most: int = MOST, seconds: float = SECONDS) -> ReportsReport:
        """Read what was reported since the last run, and somewhat before. Raises as `MeterSink.error_reports`."""
        now = self._clock.now()
        deadline = self._clock.monotonic() + seconds
        until = self._log.reported_until()
        since = max(now - KEPT_FOR, until - OVERLAP) if until is not None else now - KEPT_FOR
        report = ReportsReport()
        sink = self._open_sink()
        try:
            if not self._turn(deadline):
                return dataclasses.replace(report, more=True)
            for found in sink.error_reports(since):
                report = self._take(found, report)
                next_page = report.read % _PAGE == 0
                if report.read == most or (next_page and not self._turn(deadline)):
                    return dataclasses.replace(report, more=True)
        finally:
            sink.close()
        return report

    def _turn(self, deadline: float) -> bool:
        return await_turn(self._reads, self._clock, self._wait, lambda: self._clock.monotonic() <= deadline)

    def _take(self, found: ErrorReport, report: ReportsReport) -> ReportsReport:
        """Keep one report, and say of the increments that it names what it says; one at a time, so that none is missed.

        A run that is killed between the two has kept it as the latest, from before which the next run reads.
        """
        ((_, named),) = self._log.add_reports([found], self._clock.now())
        states = [
            changed.state
            for increment_id in named
            if (changed := self._log.change(increment_id, lambda locked: afterwards.named(locked, found))) is not None
        ]
        return dataclasses.replace(
            report,
            read=report.read + 1,
            rejected=report.rejected + states.count(State.REJECTED),
            quarantined=report.quarantined + states.count(State.QUARANTINED),
            unmatched=report.unmatched + afterwards.leaves_open(found, named),
        )
