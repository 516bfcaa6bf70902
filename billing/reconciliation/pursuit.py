"""One client, compared while Redis and PostgreSQL move on. Pure: readings and facts are handed in.

The bucket is read first, PostgreSQL after it. If they do not agree yet, PostgreSQL is read again later, when the events
that were on their way have arrived, and compared with the bucket as it was. A further reading of the bucket is taken
each time as well: for a grant that was noted as applied in between, an epoch that has begun, a clock that was set
back. To agree with one reading is to agree: each is a whole truth about its moment. A reading that only an event of
its very millisecond could explain decides nothing, for it would hide as many credits as that event cost: it is
dropped, and the next one is asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

from billing.credits.auditing import BucketReading
from billing.reconciliation.facts import LedgerFacts
from billing.reconciliation.laws import grants, spent
from billing.reconciliation.report import Discrepancy, Law

#: Readings that are kept: the oldest ones, for which the log has had the most time, and the latest.
_OLDEST = _LATEST = 4

RECOVERING = "its shard is recovering"
REBUILD_WAITS = "its shard waits for a rebuild"
EPOCH_BEGAN = "a new epoch has just begun"
UNREADABLE = "its bucket cannot be read"
UNDECIDED = "no reading stood long enough beside its log: events of the same millisecond, or a shard just back"


class Pursuit:
    """Pursues one client until its bucket and its log agree."""

    def __init__(self, client_id: str) -> None:
        self.client_id = client_id
        self._readings: list[BucketReading] = []
        self._latest: BucketReading | None = None
        self._ledger: LedgerFacts | None = None
        self._rounds_behind = 0

    @property
    def since_ms(self) -> int | None:
        """The oldest moment of a bucket that is still compared."""
        return min((reading.at_ms for reading in self._readings), default=None)

    def read(self, reading: BucketReading) -> None:
        """Take a reading of the bucket. A new epoch starts the comparison again."""
        self._latest = reading
        if reading.balance is None:
            return
        epoch = reading.balance.epoch
        kept = [old for old in self._readings if old.balance is not None and old.balance.epoch == epoch]
        self._readings = [*kept[:_OLDEST], *kept[_OLDEST:][1 - _LATEST :], reading]

    def agreed(self, ledger: LedgerFacts) -> BucketReading | None:
        """Take what PostgreSQL says after the latest reading; return the reading that agrees with it, if one does."""
        self._ledger = ledger
        latest = self._latest
        if latest is None or latest.balance is None:
            return None
        self._rounds_behind = self._rounds_behind + 1 if latest.balance.epoch < ledger.epoch else 0
        decided = []
        for reading in self._readings:
            if list(_differences(reading, ledger)):
                decided.append(reading)
            elif not any(spent.cut(ledger, reading.at_ms).unsure.values()):
                return reading
        self._readings = decided
        return None

    def left_out(self, waited_seconds: float) -> str | None:
        """Return why the client could not be compared, after the last round; None: then there are `discrepancies`.

        A reading differs for certain only if what was on its way has had at least half of the wait to arrive.
        """
        latest, ledger = self._latest, self._ledger
        if latest is None or ledger is None or latest.recovering:
            return RECOVERING
        if latest.unreadable:
            return UNREADABLE
        if ledger.rebuild is not None:
            return f"{REBUILD_WAITS} ({ledger.rebuild})"
        if latest.balance is not None and latest.balance.epoch < ledger.epoch and self._rounds_behind <= 1:
            return EPOCH_BEGAN
        if latest.balance is not None and latest.balance.epoch == ledger.epoch:
            oldest_ms = self.since_ms
            if oldest_ms is None or latest.at_ms - oldest_ms < waited_seconds * 500:
                return UNDECIDED
        return None

    def discrepancies(self, waited_seconds: float) -> Iterator[Discrepancy]:
        """Yield what still differs after the last round, as of the oldest reading. Only where nothing is `left_out`."""
        latest, ledger = self._latest, self._ledger
        if latest is None or ledger is None:
            return
        if latest.balance is None:
            found = "PostgreSQL knows the client, Redis has no bucket for it"
            yield Discrepancy(law=Law.SPENT.value, client_id=self.client_id, found=found)
        elif latest.balance.epoch != ledger.epoch:
            found = f"the bucket is of epoch {latest.balance.epoch}, PostgreSQL is at {ledger.epoch}"
            yield Discrepancy(law=Law.SPENT.value, client_id=self.client_id, found=found)
        elif self._readings:
            for found_ in _differences(self._readings[0], ledger):
                yield _with_wait(found_, waited_seconds)


def _differences(reading: BucketReading, ledger: LedgerFacts) -> Iterator[Discrepancy]:
    balance = reading.balance
    if balance is None or balance.epoch != ledger.epoch:
        yield Discrepancy(law=Law.SPENT.value, client_id=reading.client_id, found="is not of this epoch")
        return
    yield from grants.in_bucket(balance, ledger)
    yield from spent.differences(balance, ledger, reading.at_ms)


def _with_wait(found: Discrepancy, waited_seconds: float) -> Discrepancy:
    """Say how long events on their way were waited for, where that is what could have explained it."""
    if found.law != Law.SPENT.value or waited_seconds < 1:
        return found
    return dataclasses.replace(found, found=f"{found.found}, {waited_seconds:,.0f} s later")
