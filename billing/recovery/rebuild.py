"""Rebuilds the shards whose Redis lost, or may have lost, something (L6). Simple, correct and slow.

While a shard recovers, nothing is admitted on it. The steps are: let workers assert the holds of running attempts;
flush outboxes and usage queues, so that everything published before is in the log; then write every bucket of a shard
at a new epoch and open it on that very server. Each step may die; the next rebuild begins anew. What one usage queue
or one shard cannot do stops no other (L10).
"""

from __future__ import annotations

import dataclasses
import logging
import threading
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Final

from sqlalchemy import text

from billing.connections import postgres
from billing.core.change_log import REBUILDS, log_change
from billing.core.errors import Recovering, Retryable, Unreachable
from billing.core.limits import RENEWALS_PER_LEASE
from billing.core.settings import Settings
from billing.ledger import locks, rebuilds
from billing.recovery import facts
from billing.recovery.flush import MARKER_SECONDS, Flush
from billing.recovery.writing import write_shard
from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)

#: Shards that Redis does not answer for, after which one look ends: each may cost a wait (L9). The next begins behind.
SILENT_MAX: Final = 4
#: Shards that one message names.
_NAMED_MAX: Final = 10


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class _Look:
    """What the servers of some shards answered: trusted, trust lost, or nothing at all."""

    trusted: set[int] = dataclasses.field(default_factory=set)
    lost: set[int] = dataclasses.field(default_factory=set)
    silent: dict[int, Unreachable] = dataclasses.field(default_factory=dict)


class Rebuilder:
    """Looks for shards that are not trusted, and rebuilds them. One at a time in the fleet leads."""

    def __init__(self, runtime: Runtime, *, marker_seconds: float = MARKER_SECONDS) -> None:
        self._runtime = runtime
        self._stopped = threading.Event()
        self._first_shard = 0
        self._flush = Flush(runtime, self._wait, marker_seconds=marker_seconds)

    def stop(self) -> None:
        """End a wait that is going on; the rebuild begins anew elsewhere."""
        self._stopped.set()

    def step(self) -> int:
        """Rebuild what needs it; return how many shards were. Raises `Retryable` when it must be tried again.

        A shard whose Redis does not answer, or stops to on the way, holds up no other: all of them are named when these
        are done.
        """
        runtime = self._runtime
        with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
            requested = rebuilds.requested(connection)
            known = facts.shards_with_clients(connection)
        look = self._look(known)
        wanted = (requested.keys() & known) - look.lost - look.silent.keys()
        rebuilt, left = self._led(look, wanted, requested) if look.lost or wanted else (0, set[int]())
        waiting = [f"{len(left)} shards still wait for their rebuild ({_named(left)})"] if left else []
        for error in look.silent.values():
            told = f"{len(look.silent)} shards were not looked at or rebuilt ({_named(look.silent)}): {error}"
            raise Unreachable("; ".join([*waiting, told])) from error
        if left:
            raise Recovering(*waiting)
        return rebuilt

    def _led(self, look: _Look, wanted: set[int], requested: dict[int, str]) -> tuple[int, set[int]]:
        """Rebuild shards as the one who leads; return how many, and which are left. None if somebody else leads."""
        runtime = self._runtime
        with postgres.reaching(runtime.settings), runtime.engine.begin() as leader:
            if not locks.try_lead_recovery(leader, 0):
                return 0, set()
            # The leader's connection idles through waits, and its lock must outlive none of them unseen.
            leader.execute(text("SET LOCAL idle_in_transaction_session_timeout = 0"))
            lost = self._closed(look, requested)
            rebuilt = self._rebuild(lost)
            wanted = wanted - lost
            # A trusted shard goes on working until it is known that its rebuild can come to an end.
            ready = set(self._flush.arrived(sorted(wanted), outboxes=False))
            rebuilt |= self._rebuild(self._close(ready, look, requested))
        return len(rebuilt), (lost | wanted) - rebuilt - look.silent.keys()

    def _look(self, known: AbstractSet[int]) -> _Look:
        """Ask the servers of some shards whether they are trusted."""
        shards = self._runtime.settings.shards
        order = sorted(known, key=lambda shard: (shard - self._first_shard) % shards)
        look = _Look()
        for shard in order:
            try:
                verified, current = self._runtime.buckets.server_of(shard)
            except Unreachable as error:
                look.silent[shard] = error
                if len(look.silent) == SILENT_MAX:
                    self._first_shard = (shard + 1) % shards
                    break
            else:
                (look.trusted if verified == current else look.lost).add(shard)
        return look

    def _closed(self, look: _Look, requested: dict[int, str]) -> set[int]:
        """Close the shards that have lost their trust, and return them.

        A server may be lost in the middle of a look: those of its shards that came before would wait a whole rebuild
        for theirs. So they are looked at once more, and all of them go in one.
        """
        closed = self._close(look.lost, look, requested)
        missed = self._look(look.trusted).lost if look.lost else set()
        return closed | self._close(missed, look, requested)

    def _close(self, shards: set[int], look: _Look, requested: dict[int, str]) -> set[int]:
        """Close shards; return those whose server took it."""
        closed = set()
        for shard in sorted(shards):
            reason = requested.get(shard, "its server lost its trust")
            try:
                self._runtime.buckets.close(shard)
            except Unreachable as error:
                look.silent[shard] = error
            else:
                log_change(REBUILDS, "closed", logging.WARNING, shard=shard, reason=reason)
                closed.add(shard)
        return closed

    def _rebuild(self, shards: set[int]) -> set[int]:
        """Open closed shards again as their queues are flushed; return which are open."""
        if not shards:
            return set()
        self._wait(assertion_seconds(self._runtime.settings))
        return {shard for shard in self._flush.arrived(sorted(shards), outboxes=True) if self._written(shard)}

    def _written(self, shard: int) -> bool:
        try:
            write_shard(self._runtime, shard)
        except Retryable as error:
            logger.warning("billing: %s", error)
        except Exception:
            logger.exception("billing: shard %d could not be rebuilt; the others go on", shard)
        else:
            return True
        return False

    def _wait(self, seconds: float) -> None:
        if self._stopped.wait(seconds):
            message = "rebuild: this worker stops; another one begins anew"
            raise Recovering(message)


def assertion_seconds(settings: Settings) -> float:
    """Return how long workers may take to assert their running attempts: one renewal, with every try it may need."""
    tries = settings.redis_retries + 1
    return settings.lease_seconds / RENEWALS_PER_LEASE + settings.redis_timeout_seconds * tries + 1


def _named(shards: Iterable[int]) -> str:
    found = sorted(shards)
    return ", ".join(map(str, found[:_NAMED_MAX])) + (", …" if len(found) > _NAMED_MAX else "")
