"""Confirms what differs before anything is posted: two readings of a bucket must ask for the same correction.

A correction that says that something was spent, or was not, counts from a reading of which it is proven that the log
has all that was settled before it (`continuous/arrivals.py`). To agree with one reading is to agree, as in decision 8.
"""

from __future__ import annotations

import collections
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from billing.core.clock import to_milliseconds
from billing.core.shards import shard_of
from billing.credits.auditing import BucketReading
from billing.reconciliation import reading
from billing.reconciliation.continuous.arrivals import Arrivals
from billing.reconciliation.continuous.audit import SILENT, audit
from billing.reconciliation.repair.corrections import Correction, correction
from billing.task.runtime import Runtime

#: The pause between two rounds, and how long a proof is waited for beyond `billing_reconcile_wait_seconds`.
_PAUSE_SECONDS, _PROOF_SECONDS = 0.5, 30.0
#: Readings of a bucket that are kept: the oldest, which are proven first, and the latest.
_OLDEST = _LATEST = 2
#: Readings that must ask for the same.
_TWICE: Final = 2

NO_PROOF: Final = "nothing proves that the log has all events: see whether a worker with --fulfillment runs"


class Confirming:
    """Finds the corrections of some clients."""

    def __init__(self, runtime: Runtime, *, wait: Callable[[float], object] | None = None) -> None:
        self._runtime, self._wait = runtime, wait or threading.Event().wait
        self._arrivals = Arrivals(runtime)

    def corrections(self, client_ids: Sequence[str]) -> dict[str, Correction]:
        """Return what puts each client right (nothing, where it agrees). Raises `Unreachable` for PostgreSQL."""
        clock, settings = self._runtime.clock, self._runtime.settings
        waiting = {client_id: shard_of(client_id, settings.shards) for client_id in client_ids}
        kept: dict[str, list[BucketReading]] = collections.defaultdict(list)
        found: dict[str, Correction] = {}
        until = clock.monotonic() + settings.reconcile_wait_seconds + _PROOF_SECONDS
        while waiting:
            last = clock.monotonic() > until
            for ids in _slices(list(waiting), settings.reconcile_slice):
                found |= self._round({client_id: waiting[client_id] for client_id in ids}, kept, last=last)
            waiting = {client_id: shard for client_id, shard in waiting.items() if client_id not in found}
            if waiting:
                self._wait(_PAUSE_SECONDS)
        return found

    def _round(
        self, shards: Mapping[str, int], kept: dict[str, list[BucketReading]], *, last: bool
    ) -> dict[str, Correction]:
        runtime = self._runtime
        readings = audit(runtime.buckets, shards)
        for client_id, one in readings.items():
            own = kept[client_id]
            kept[client_id] = [*own[:_OLDEST], *own[_OLDEST:][1 - _LATEST :], one]
        with runtime.engine.begin() as connection:
            self._arrivals.look(connection)
        present = to_milliseconds(runtime.clock.now())
        since = {
            client_id: min((one.at_ms or present for one in kept[client_id]), default=present) for client_id in shards
        }
        with reading.snapshot(runtime.settings, runtime.engine) as connection:
            ledger = reading.ledger_facts(connection, since)
        found: dict[str, Correction] = {}
        unproven: dict[int, int] = {}
        for client_id, shard in shards.items():
            of_client, facts = kept[client_id], ledger.get(client_id)
            if facts is None:
                gone = "PostgreSQL has no such client"
                found[client_id] = Correction(client_id=client_id, shard=shard, epoch=0, unknown=gone)
                continue
            made = [correction(one, facts) for one in of_client]
            decided = self._decide(made)
            if decided is not None:
                found[client_id] = decided
            elif last:
                reason = made[-1].unknown or NO_PROOF if made else SILENT
                found[client_id] = Correction(client_id=client_id, shard=shard, epoch=facts.epoch, unknown=reason)
            elif made and made[-1].needs_proof:
                unproven[shard] = max(unproven.get(shard, 0), made[-1].at_ms)
        self._arrivals.ask(unproven)
        return found

    def _decide(self, seen: Sequence[Correction]) -> Correction | None:
        """Return what is confirmed of a client by its readings, the oldest first; None while nothing is."""
        for made in seen:
            if made.is_nothing or made.asked is not None or made.doubt is not None:
                return made
        sure: list[Correction] = []
        for made in seen:
            if made.unknown is None and (not made.needs_proof or self._arrivals.proven(made.shard, made.at_ms)):
                if sure.count(made) == _TWICE - 1:
                    return made
                sure.append(made)
        return None


def _slices(ids: Sequence[str], size: int) -> list[Sequence[str]]:
    return [ids[start : start + size] for start in range(0, len(ids), size)]
