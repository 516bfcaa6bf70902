"""Reads billing periods before a plan: outside of any transaction, bounded in number and in time (L9).

A customer who cannot be read delays no other (L10); a sink that answers for nobody leaves the plan with what is known.
"""

from __future__ import annotations

import dataclasses
from typing import Final

from billing.core.clock import Clock
from billing.core.errors import BillingError
from billing.sinks.sync.log import PlanningLog
from billing.sinks.sync.planning.period_source import PeriodSource

#: Customers that one plan reads at most, and how many at once.
READS_MAX: Final = 2_000
READS_AT_ONCE: Final = 50
SECONDS: Final = 100.0


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Refreshed:
    """How many customers' periods were read, how many could not be, and why it stopped, if it did."""

    read: int = 0
    unread: int = 0
    stopped: str = ""


def refresh(
    log: PlanningLog,
    source: PeriodSource,
    clock: Clock,
    *,
    meter: str,
    client_id: str | None = None,
    most: int = READS_MAX,
    seconds: float = SECONDS,
) -> Refreshed:
    """Read the periods of customers with something to plan, those first that need it most."""
    deadline = clock.monotonic() + seconds
    began = clock.now()
    wanted = log.find_unread(now=began, before=began, most=most, meter=meter, client_id=client_id)
    read = 0
    for at in range(0, len(wanted), READS_AT_ONCE):
        if clock.monotonic() > deadline:
            return Refreshed(read=read, unread=len(wanted) - read, stopped="the time for reading periods is used up")
        some = wanted[at : at + READS_AT_ONCE]
        read_at = clock.now()
        try:
            found = source.read(some)
        except BillingError as error:
            return Refreshed(read=read, unread=len(wanted) - read, stopped=str(error))
        for customer_id in some:
            log.keep_periods(customer_id, found.get(customer_id), read_at=read_at)
        read += sum(customer_id in found for customer_id in some)
    return Refreshed(read=read, unread=len(wanted) - read)
