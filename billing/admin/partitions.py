"""The months of the usage history: what there is, making them ahead, and moving one to the archive and back.

Nothing is ever deleted (L7). Whatever reads the history reads the archive too, so that no sum changes when a month
moves; it refuses to move a month while its run ids may still come as new events, or its usage is still on its way to
Stripe (L8).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import datetime
from typing import Final

from sqlalchemy import Connection, text

from billing.admin.access import runtime_for
from billing.connections import postgres
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.schema import archiving
from billing.schema.archiving import read_partitions
from billing.schema.months import Partition, check_age, missing_months, name_of, parse_month
from billing.schema.partitions import make_partitions
from billing.task.runtime import Runtime

#: What is on its way and says something of usage before the month's end, by name: the first of each kind. What
#: corrections returned beyond what was used is on its way to nowhere: it waits for later usage, which may never come;
#: so does what is less than one unit of its meter. What was written off, or is for a person to look at, is done with:
#: it says so itself, and is read in the archive as well.
_UNFINISHED: Final = text("""
(SELECT 'is used by client ' || client_id || ' for credits that no increment carries yet (see: billing sync plan)'
 FROM (SELECT client_id, coalesce(max(credits_per_unit), 1) AS credits_per_unit,
              sum(sum(credits - planned)) OVER (PARTITION BY client_id, counted_by ORDER BY period) AS net
       FROM usage_rollup JOIN stripe_customer USING (client_id) LEFT JOIN sku_meter USING (sku)
            CROSS JOIN LATERAL coalesce(sku_meter.event_name, :meter) AS counted_by
            LEFT JOIN meter ON meter.event_name = counted_by
            CROSS JOIN LATERAL date_trunc('month', hour, 'UTC') AS period
       WHERE unplanned AND hour < :end
       GROUP BY client_id, counted_by, period) AS carried
 WHERE net >= credits_per_unit LIMIT 1)
UNION ALL
(SELECT 'is carried by increment ' || increment_id || ', which is ' || state || ' (see: billing sync status)'
 FROM stripe_increment
 WHERE state IN ('pending', 'sending', 'sent', 'ambiguous') AND coalesce(carries_from, period_start) < :end LIMIT 1)
UNION ALL
(SELECT 'has the run of parked task ' || parked_id || ', which waits still (see: billing parked list)'
 FROM parked_task WHERE state = 'waiting' AND run_id >= :first_id AND run_id < :end_id LIMIT 1)
""")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Partitions:
    """The parts of the history in the order of their run ids, and the months that are in none of them."""

    partitions: Sequence[Partition]
    missing: Sequence[str]


def partitions(settings: Settings, *, exact: bool = False, now: datetime | None = None) -> Partitions:
    """Return every part of the history; `exact` counts all rows, which reads them."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        found = read_partitions(connection, exact=exact)
    return Partitions(partitions=found, missing=missing_months(found, now or runtime.clock.now()))


def make_months(settings: Settings, *, now: datetime | None = None) -> Sequence[str]:
    """Make every month that is missing, up to a year ahead; return the names of those made."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        return make_partitions(connection, now or runtime.clock.now())


def detach_month(settings: Settings, month: str, *, now: datetime | None = None) -> Partition:
    """Move a month to the archive. Harmless where it is there, and the end of a move that was killed.

    Raises `InvalidValue` for what is no month, is too young, or is not finished, and `InUse`.
    """
    runtime = runtime_for(settings)
    start = parse_month(month)
    check_age(start, now or runtime.clock.now())
    with postgres.reaching(settings):
        with runtime.engine.connect() as connection:
            found = _find(connection, name_of(start))
            _check_finished(connection, found, settings.stripe_meter)
        if found.place != "archive":
            archiving.detach(runtime.engine, found)
        return _again(runtime, found)


def attach_month(settings: Settings, month: str) -> Partition:
    """Move a month from the archive back to the history. Harmless where it is there; ends a move that was killed.

    Raises `InvalidValue` for what is no month, and `InUse`.
    """
    runtime = runtime_for(settings)
    start = parse_month(month)
    with postgres.reaching(settings):
        with runtime.engine.connect() as connection:
            found = _find(connection, name_of(start))
        if found.place != "history" or found.prepared:
            archiving.attach(runtime.engine, found)
        return _again(runtime, found)


def _again(runtime: Runtime, month: Partition) -> Partition:
    with runtime.engine.connect() as connection:
        return _find(connection, month.name)


def _find(connection: Connection, name: str) -> Partition:
    found = {part.name: part for part in read_partitions(connection)}
    if name not in found:
        month = Partition(name=name, schema="", place="", first_id=None, end_id=None).month
        raise InvalidValue("month", month, "is in neither place (see: billing partitions list)")
    return found[name]


def _check_finished(connection: Connection, month: Partition, meter: str) -> None:
    wanted = {"end": month.end, "first_id": month.first_id, "end_id": month.end_id, "meter": meter}
    unfinished = connection.execute(_UNFINISHED, wanted).scalars().first()
    if unfinished is not None:
        raise InvalidValue("month", month.month, str(unfinished))
