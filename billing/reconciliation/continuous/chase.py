"""Pursues the clients whose bucket and log did not agree at once, beside the walk, until they do or it is certain.

The comparison is that of decision 0008, reading for reading. Certain is a difference when everything that was settled
before the reading is proven to be in the log; without that proof nothing is called missing, however long it takes.
"""

from __future__ import annotations

import dataclasses
from typing import Final

import sqlalchemy

from billing.core.clock import to_milliseconds
from billing.credits.auditing import BucketReading
from billing.reconciliation import reading
from billing.reconciliation.continuous.arrivals import Arrivals
from billing.reconciliation.continuous.audit import SILENT, audit
from billing.reconciliation.continuous.docket import Docket
from billing.reconciliation.facts import LedgerFacts
from billing.reconciliation.laws import grants, spent
from billing.reconciliation.pursuit import Pursuit
from billing.reconciliation.repair import records
from billing.reconciliation.repair.corrections import Correction
from billing.reconciliation.report import Law
from billing.task.runtime import Runtime

#: Clients that are pursued together (L9); past that they are taken up by the next pass.
PURSUED_MAX: Final = 10_000
#: The time between two looks at a client, and after which a proof is asked for: most events arrive by themselves.
_ROUND_SECONDS, _PROOF_SECONDS = 1.0, 2.0
#: Looks that find no bucket, or one of another epoch, before that is no client that is just being added or rebuilt.
_WITHOUT_MAX: Final = 4

TOO_MANY: Final = "too many clients differ at once"
ON_THEIR_WAY: Final = "events may be on their way: nothing proves that the log has them all"

#: Who asks for a rebuild that nobody else has asked for.
RECONCILER: Final = "the continuous reconciler"

_COMPARED: Final = (Law.GRANTS, Law.SPENT)


@dataclasses.dataclass(kw_only=True, slots=True)
class _Pursued:
    """A client that is pursued. Times are monotonic seconds."""

    pursuit: Pursuit
    shard: int
    begun: float
    next_at: float
    without: int = 0


class Chase:
    """All clients that are pursued."""

    def __init__(self, runtime: Runtime, engine: sqlalchemy.Engine, docket: Docket) -> None:
        self._runtime, self._engine, self._docket = runtime, engine, docket
        self._arrivals = Arrivals(runtime)
        self._pursued: dict[str, _Pursued] = {}

    def takes(self, found: BucketReading, ledger: LedgerFacts) -> None:
        """Compare a client that the walk has read; pursue it if it does not agree at once."""
        client_id = found.client_id
        if client_id in self._pursued:
            return
        pursuit = Pursuit(client_id)
        pursuit.read(found)
        if pursuit.agreed(ledger) is not None:
            self._docket.judge(client_id, _COMPARED, list(grants.in_ledger(ledger)))
        elif len(self._pursued) >= PURSUED_MAX:
            self._docket.missed.missed(client_id, Law.SPENT.value, TOO_MANY)
        else:
            now = self._runtime.clock.monotonic()
            self._pursued[client_id] = _Pursued(
                pursuit=pursuit, shard=found.shard, begun=now, next_at=now + _ROUND_SECONDS
            )

    def due(self, now: float) -> list[str]:
        """Return the clients whose turn it is, one slice of them at most."""
        limit = self._runtime.settings.reconcile_slice
        waiting = sorted((one.next_at, client_id) for client_id, one in self._pursued.items() if one.next_at <= now)
        return [client_id for _, client_id in waiting[:limit]]

    def round(self, client_ids: list[str]) -> None:
        """Look at some of them once more."""
        runtime, now = self._runtime, self._runtime.clock.monotonic()
        pursued = {client_id: self._pursued[client_id] for client_id in client_ids}
        readings = audit(runtime.buckets, {client_id: one.shard for client_id, one in pursued.items()})
        # What is committed before PostgreSQL is read is part of what it says.
        with self._engine.begin() as connection:
            self._arrivals.look(connection)
        present = to_milliseconds(runtime.clock.now())
        for client_id in readings:
            pursued[client_id].pursuit.read(readings[client_id])
        since = {
            client_id: pursued[client_id].pursuit.since_ms or found.at_ms or present
            for client_id, found in readings.items()
        }
        with reading.snapshot(runtime.settings, self._engine) as connection:
            ledger = reading.ledger_facts(connection, since)
        unproven: dict[int, int] = {}
        for client_id, one in pursued.items():
            one.next_at = now + _ROUND_SECONDS
            found = readings.get(client_id)
            if found is not None and client_id in ledger and self._decided(one, found, ledger[client_id]):
                del self._pursued[client_id]
            elif now - one.begun > runtime.settings.reconcile_wait_seconds:
                reason = SILENT if found is None else one.pursuit.left_out(0.0) or ON_THEIR_WAY
                self._docket.missed.missed(client_id, Law.SPENT.value, reason)
                del self._pursued[client_id]
            elif found is not None and found.at_ms and now - one.begun > _PROOF_SECONDS:
                unproven[one.shard] = found.at_ms
        self._arrivals.ask(unproven)

    def _decided(self, one: _Pursued, found: BucketReading, ledger: LedgerFacts) -> bool:
        """Judge a client that agrees now, or differs for certain; return whether it does one of the two."""
        pursuit = one.pursuit
        if pursuit.agreed(ledger) is not None:
            self._docket.judge(pursuit.client_id, _COMPARED, list(grants.in_ledger(ledger)))
            return True
        without = not found.recovering and (found.balance is None or found.balance.epoch != ledger.epoch)
        one.without = one.without + 1 if without else 0
        since_ms = pursuit.since_ms
        proven = not without and since_ms is not None and self._arrivals.proven(one.shard, since_ms)
        if not (proven or one.without >= _WITHOUT_MAX) or pursuit.left_out(0.0) is not None:
            return False
        differing = [*grants.in_ledger(ledger), *pursuit.discrepancies(0.0)]
        self._rebuild(one, found, ledger)
        self._docket.judge(pursuit.client_id, _COMPARED, differing)
        return True

    def _rebuild(self, one: _Pursued, found: BucketReading, ledger: LedgerFacts) -> None:
        """Ask for the rebuild of a bucket that has what PostgreSQL has lost: nothing that is posted mends it."""
        balance = found.balance
        if balance is None or balance.epoch != ledger.epoch:
            return
        lost = next(spent.lost_postings(balance, ledger), None)
        if lost is None:
            return
        made = Correction(client_id=found.client_id, shard=one.shard, epoch=ledger.epoch, rebuild=lost.found)
        # By itself, and before it is named: a rebuild too many does no harm.
        with self._engine.begin() as connection:
            records.write(connection, self._docket.run_id, made, RECONCILER)
