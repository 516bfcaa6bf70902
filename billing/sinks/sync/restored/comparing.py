"""Compares a customer's sum at the sink before it is told anything, where Redis does not say that this was done (L8).

After a Redis was lost, nobody outside of PostgreSQL knows what was sent: the sink does. One call for each customer and
meter, once. Where the sink has units that no increment has, that customer and meter is told nothing more, others go on
(L10), until somebody has adopted them. What the sums do not show yet is not seen.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final, Protocol

from sqlalchemy import Engine, text

from billing.core.clock import Clock
from billing.core.errors import BillingError, Fatal, Rejected, Unreachable
from billing.sinks.sink import Kind, MeterSink
from billing.sinks.sync.increment import Increment
from billing.sinks.sync.log import IncrementLog
from billing.sinks.sync.planning.periods import MINUTE, minute_of
from billing.sinks.sync.protocol import HELD
from billing.sinks.sync.restored.told import Told

logger = logging.getLogger(__name__)

#: Why nothing was compared once a push has ended; no increment's own matter.
_NO_TURN: Final = "there was no turn to compare its customer's sum"
#: Customers that one plan looks at (L9); the push compares whoever is left.
COMPARED_MAX: Final = 2_000
#: How far back a sum is taken: the sink takes nothing that is older.
_BACK: Final = timedelta(days=35)
#: What may be at the sink: what was taken, and all of which a call was begun.
_KNOWN: Final = text("""
SELECT coalesce(sum(units), 0)::bigint FROM stripe_increment
WHERE customer_id = :customer_id AND event_name = :event_name AND kind = 'meter_event'
  AND event_at >= :start AND event_at < :end AND coalesce(sent_to, :books) = :books
  AND (state IN ('sent', 'confirmed', 'sending', 'ambiguous') OR first_attempt_at IS NOT NULL)
""")
#: Whose usage a plan may take.
_USED: Final = text("""
SELECT DISTINCT linked.client_id, linked.customer_id, coalesce(own.event_name, :meter) AS event_name
FROM (
    SELECT client_id, customer_id FROM stripe_customer AS customer
    WHERE (CAST(:client_id AS text) IS NULL OR client_id = :client_id)
      AND EXISTS (SELECT FROM usage_rollup WHERE client_id = customer.client_id AND unplanned)
    ORDER BY client_id LIMIT :most
) AS linked JOIN usage_rollup AS used ON used.client_id = linked.client_id AND used.unplanned
LEFT JOIN sku_meter AS own USING (sku)
ORDER BY 1, 3
""")


class Guard(Protocol):
    """What a pusher asks before a call, and tells of it. The methods are called by several threads."""

    def held(self, sink: MeterSink, increment: Increment, turn: Callable[[], bool]) -> str:
        """Return why its customer and meter is told nothing for now; empty: it may be."""
        ...

    def note(self, claim: Increment) -> None:
        """Keep a call that is about to be made. Never raises for a server that is away."""
        ...


class Comparing:
    """The `Guard` of one push."""

    def __init__(self, engine: Engine, log: IncrementLog, told: Told, clock: Clock, *, books: str) -> None:
        self._engine, self._log, self._told, self._clock, self._books = engine, log, told, clock, books
        self._found: dict[tuple[str, str], str] = {}
        #: Meter → why it tells no sums.
        self._refused: dict[str, str] = {}
        self._is_away, self._is_answering = False, True

    def held(self, sink: MeterSink, increment: Increment, turn: Callable[[], bool]) -> str:
        """Return why nothing of its customer and meter is sent: the sink has units of it that nobody here sent."""
        if increment.kind is not Kind.METER_EVENT:
            return ""
        pair = increment.customer_id, increment.event_name
        if pair not in self._found:
            is_known = increment.event_name not in self._refused and pair in self._compared([pair])
            self._found[pair] = "" if is_known else self._compare(sink, increment.client_id, pair, turn)
        why = self._found[pair]
        if why not in ("", _NO_TURN, increment.reason):
            self._log.change(
                increment.increment_id,
                lambda locked: dataclasses.replace(locked, reason=why) if locked.state is increment.state else None,
            )
        return why

    def hold_back(self, sink: MeterSink, meter: str, *, client_id: str | None = None) -> dict[tuple[str, str], str]:
        """Return why usage of some customers and meters is not to be planned: it may be what Stripe has already.

        At most `COMPARED_MAX` customers are looked at, of which nearly all were compared before. A sink that does not
        answer holds nobody back: the push compares again.
        """
        given = {"meter": meter, "client_id": client_id, "most": COMPARED_MAX}
        with self._engine.connect() as connection:
            used = connection.execute(_USED, given).all()
        known = self._compared([(row.customer_id, row.event_name) for row in used])
        for row in used:
            pair = row.customer_id, row.event_name
            if pair not in known and self._is_answering:
                self._found[pair] = self._compare(sink, row.client_id, pair, lambda: True)
        return {pair: why for pair, why in self._found.items() if why.startswith(HELD)}

    def note(self, claim: Increment) -> None:
        """Keep a call in Redis; without one, the sums are compared anew by each push until it is back."""
        if self._is_away:
            return
        try:
            self._told.note(claim.idempotency_key, claim.last_attempt_at or self._clock.now())
        except Unreachable as error:
            self._go_without(error)

    def _compare(self, sink: MeterSink, client_id: str, pair: tuple[str, str], turn: Callable[[], bool]) -> str:
        if pair[1] in self._refused:
            return self._refused[pair[1]]
        if not turn():
            return _NO_TURN
        now = self._clock.now()
        start, end = minute_of(now - _BACK), minute_of(now) + MINUTE
        try:
            total = sink.total(*pair, start, end)
        except Rejected:
            return ""  # one customer's matter: the call itself is to say so
        except BillingError as error:
            why = f"its customer's sum could not be compared: {error}"
            if isinstance(error, Fatal):  # its meter, or the key: other meters are asked, each once
                self._refused[pair[1]] = why
            else:
                self._is_answering = False
            return why
        beyond = total - self._known(pair, start, end)
        if beyond > 0:
            return (
                f"{HELD}Stripe has {beyond:,} units of customer {pair[0]} that these books do not know "
                f"(billing sync adopt {client_id} --reason …; if another system sent them: --not-ours)"
            )
        self._note_compared(pair)
        return ""

    def _known(self, pair: tuple[str, str], start: datetime, end: datetime) -> int:
        customer_id, event_name = pair
        given = {"customer_id": customer_id, "event_name": event_name, "start": start, "end": end}
        with self._engine.connect() as connection:
            known: int = connection.execute(_KNOWN, {**given, "books": self._books}).scalar_one()
        return known

    def _compared(self, pairs: Sequence[tuple[str, str]]) -> set[tuple[str, str]]:
        if self._is_away:
            return set()
        try:
            return self._told.compared(pairs)
        except Unreachable as error:
            self._go_without(error)
            return set()

    def _note_compared(self, pair: tuple[str, str]) -> None:
        if self._is_away:
            return
        try:
            self._told.note_compared(pair)
        except Unreachable as error:
            self._go_without(error)

    def _go_without(self, error: Unreachable) -> None:
        """Ask Redis no more: each customer of this push would wait for it."""
        self._is_away = True
        logger.warning("billing: calls to Stripe are not kept outside of PostgreSQL: %s", error)
