"""Where a client's units may be at the sink: its billing periods, with the increments that are stamped in each.

What a restored database knows of periods may be old: they are read anew before (`planning.refreshing`). A place of
which not all can be looked at is refused: what was left out would be taken for unknown, and never be billed (L8).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text

from billing.core.errors import InvalidValue
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.planning.periods import KnownPeriod, calendar, minute_of
from billing.sinks.sync.postgres.log import PostgresLog
from billing.sinks.sync.postgres.plan import read_periods
from billing.sinks.sync.postgres.rows import COLUMNS, increment_of

#: How far back periods are looked at (L9): a backup that is older than that is no backup.
BACK: Final = timedelta(days=100)
#: Increments of one place that are read: there is one in a minute at most, so a month has no more (L9).
INCREMENTS_MAX: Final = 50_000
#: Those of them, and open invoice items of a client, that are looked at, each by a call (L9).
LOOKS_MAX: Final = 2_000

_CUSTOMERS: Final = text("""
SELECT client_id, customer_id FROM stripe_customer
WHERE client_id > :after AND (CAST(:client_id AS text) IS NULL OR client_id = :client_id)
ORDER BY client_id LIMIT :most
""")
#: The meters that a client's usage is for, and the periods for which increments were planned.
_METERS: Final = text("""
SELECT DISTINCT coalesce(own.event_name, :meter) FROM usage_rollup AS used LEFT JOIN sku_meter AS own USING (sku)
WHERE client_id = :client_id
UNION SELECT event_name FROM stripe_increment WHERE customer_id = :customer_id
UNION SELECT CAST(:meter AS text)
ORDER BY 1
""")
_PLANNED: Final = text("""
SELECT DISTINCT event_name, period_start, period_end FROM stripe_increment
WHERE customer_id = :customer_id AND period_end > :oldest ORDER BY 1, 2, 3
""")
_INCREMENTS: Final = text(f"""
SELECT {COLUMNS} FROM stripe_increment
WHERE customer_id = :customer_id AND event_name = :event_name AND coalesce(sent_to, :books) = :books
  AND kind = 'meter_event' AND event_at >= :start AND event_at < :end
ORDER BY increment_id LIMIT :most
""")  # noqa: S608 - constants
_ITEMS: Final = text(f"""
SELECT {COLUMNS} FROM stripe_increment
WHERE client_id = :client_id AND kind = 'invoice_item' AND state NOT IN ('sent', 'confirmed', 'written_off')
ORDER BY increment_id LIMIT :most
""")  # noqa: S608


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Looked:
    """A client's customer and meter, and one period of it."""

    client_id: str
    customer_id: str
    event_name: str
    period: KnownPeriod

    @property
    def span(self) -> tuple[datetime, datetime]:
        """The whole minutes that the sink adds up."""
        return minute_of(self.period.start), minute_of(self.period.end)


class PlaceLog(PostgresLog):
    """The log, by places."""

    def linked(self, *, after: str, client_id: str | None, most: int) -> list[tuple[str, str]]:
        """Return the next linked clients with their customers."""
        given = {"after": after, "client_id": client_id, "most": most}
        with self._engine.connect() as connection:
            return [(row.client_id, row.customer_id) for row in connection.execute(_CUSTOMERS, given)]

    def places(
        self, client_id: str, customer_id: str, *, meter: str, months: bool, grace: timedelta, now: datetime
    ) -> list[Looked]:
        """Return a client's places, by meter, the oldest first."""
        whose = {"customer_id": customer_id, "oldest": now - BACK}
        meters = self.meters(client_id, customer_id, meter=meter)
        with self._engine.connect() as connection:
            known = read_periods(connection, [customer_id])
            planned = connection.execute(_PLANNED, whose).all()
        found = []
        for event_name in meters:
            own: list[KnownPeriod] = list(known.get((customer_id, event_name), ()))
            if months:
                own = calendar([now - BACK * part / 4 for part in range(5)], grace=grace)
            for row in planned:
                if row.event_name == event_name and not _covered(row.period_start, own):
                    own.append(KnownPeriod(start=row.period_start, end=row.period_end))
            found += [
                Looked(client_id=client_id, customer_id=customer_id, event_name=event_name, period=period)
                for period in sorted(own, key=lambda one: one.start)
                if period.end > now - BACK and period.start <= now
            ]
        return found

    def meters(self, client_id: str, customer_id: str, *, meter: str) -> list[str]:
        """Return the meters that a client's usage is for, or was, whatever is known of its periods."""
        whose = {"client_id": client_id, "customer_id": customer_id, "meter": meter}
        with self._engine.connect() as connection:
            return list(connection.execute(_METERS, whose).scalars())

    def increments(self, place: Looked, books: str) -> Sequence[Increment]:
        """Return all that is stamped in a place. Raises `InvalidValue` where that is too much to be looked at."""
        start, end = place.span
        given = {"customer_id": place.customer_id, "event_name": place.event_name, "start": start, "end": end}
        with self._engine.connect() as connection:
            rows = connection.execute(_INCREMENTS, {**given, "books": books, "most": INCREMENTS_MAX + 1}).mappings()
            found = [increment_of(row) for row in rows]
        where = f"increments of {place.event_name} in the period from {start:%Y-%m-%d}"
        _check_bound(place.client_id, len(found), INCREMENTS_MAX, where)
        to_look_at = sum(one.state is not State.CONFIRMED for one in found)
        _check_bound(place.client_id, to_look_at, LOOKS_MAX, f"unconfirmed {where}")
        return found

    def open_items(self, client_id: str) -> Sequence[Increment]:
        """Return all of a client's invoice items of which it is not known whether the sink has them.

        Raises `InvalidValue` where that is too much to be looked at.
        """
        with self._engine.connect() as connection:
            given = {"client_id": client_id, "most": LOOKS_MAX + 1}
            found = [increment_of(row) for row in connection.execute(_ITEMS, given).mappings()]
        _check_bound(client_id, len(found), LOOKS_MAX, "open invoice items")
        return found


def _check_bound(client_id: str, count: int, most: int, what: str) -> None:
    """Refuse what can only be looked at in part: one client's own matter, which stops no other's (L10)."""
    if count > most:
        raise InvalidValue("client", client_id, f"has more than {most:,} {what}: too many to be held to Stripe's sums")


def _covered(start: datetime, own: Sequence[KnownPeriod]) -> bool:
    return any(period.start <= start < period.end for period in own)
