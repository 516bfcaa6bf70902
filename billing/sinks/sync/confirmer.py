"""Confirms what was sent: the summary of an increment's own minute shows its units, so Stripe has counted it (L8).

It never sends. A summary that shows something else proves nothing yet (Stripe's summaries lag, without a bound that it
promises); more than the units is noted, for a person to look at.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Final

from sqlalchemy import Engine

from billing.core.clock import Clock
from billing.core.errors import Rejected, Unreachable
from billing.sinks.sink import MeterSink
from billing.sinks.stripe.keys import KeyKind
from billing.sinks.sync import push_statements as sql
from billing.sinks.sync.periods import MINUTE

#: Bounds of one run (L9). Stripe allows 25 summaries a second.
MOST: Final = 500
SECONDS: Final = 60.0
#: Calls in a row without an answer, after which nobody is taken to listen. Fewer are some customer's own error (L10).
UNANSWERED_MAX: Final = 5
_HALF: Final = timedelta(seconds=30)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ConfirmReport:
    """How many increments were looked at, and how many of them Stripe has counted."""

    checked: int = 0
    confirmed: int = 0


class Confirmer:
    """Confirms increments of one meter that were sent to the books of one kind of key."""

    def __init__(
        self, engine: Engine, clock: Clock, open_sink: Callable[[], MeterSink], *, event_name: str, books: KeyKind
    ) -> None:
        self._engine, self._clock, self._open_sink = engine, clock, open_sink
        self._given = {"event_name": event_name, "books": books.value}

    def confirm(self, *, most: int = MOST, seconds: float = SECONDS) -> ConfirmReport:
        """Look at what waits to be confirmed, those first that were looked at longest ago.

        Raises `Unreachable` when Stripe does not answer, `Fatal` when it refuses the key or the meter is wrong.
        """
        deadline = self._clock.monotonic() + seconds
        with self._engine.connect() as connection:
            found = list(connection.execute(sql.FIND_UNCONFIRMED, {**self._given, "most": most}))
        report = ConfirmReport()
        if not found:
            return report
        sink = self._open_sink()
        unanswered: list[Unreachable] = []
        try:
            for row in found:
                if self._clock.monotonic() > deadline or len(unanswered) == UNANSWERED_MAX:
                    break
                try:
                    proven = self._check(sink, row)
                except Unreachable as error:
                    unanswered.append(error)
                    continue
                unanswered.clear()
                report = ConfirmReport(checked=report.checked + 1, confirmed=report.confirmed + proven)
        finally:
            sink.close()
        if unanswered and (len(unanswered) == UNANSWERED_MAX or not report.checked):
            raise unanswered[-1]
        return report

    def _check(self, sink: MeterSink, row: Any) -> bool:
        minute = row.event_at - _HALF
        reason: str | None = None
        try:
            shown = sink.total(row.customer_id, str(self._given["event_name"]), minute, minute + MINUTE)
        except Rejected as error:  # one customer that Stripe does not know keeps no other waiting (L10)
            shown, reason = 0, str(error)
        if shown > row.units:
            reason = f"Stripe's summary of its minute shows {shown}, more than its units"
        noted = {"increment_id": row.increment_id, "state": row.state, "now": self._clock.now(), "reason": reason}
        with self._engine.begin() as connection:
            done = connection.execute(sql.NOTE_CHECK, {**noted, "proven": shown == row.units}).rowcount
        return shown == row.units and done == 1
