"""Brings buckets back on a server that has lost something, in the order of `billing.recovery`, by the same verbs.

Close; have all processes assert their holds; flush outboxes into the log; per shard plan, rebuild at a new epoch, and
open on that very server. Beside it, what the fulfillment worker's loops do: relay, postings, ends of grants.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import Final
from uuid import UUID

from billing.credits.posting import PostOutcome
from billing.credits.values import RebuildOutcome, StoredHold
from tests.contract.faulty.calls import Calls
from tests.contract.faulty.fleet import Fleet
from tests.contract.faulty.ledger import Ledger
from tests.contract.faulty.values import SHARDS, Assert, Asserted, Breach, Recovered
from tests.contract.faulty.values import shard as shard_of

_RELAYED_MAX: Final = 500
_GRANTS_MAX: Final = 1_000
#: How often the rebuild of a shard begins anew before that is a breach (L9).
_TRIES_MAX: Final = 50
_LOST: Final = (PostOutcome.UNCOVERED, PostOutcome.UNKNOWN_CLIENT, PostOutcome.CORRUPT)


class Recovery:
    """The fulfillment worker's side."""

    def __init__(self, calls: Calls, ledger: Ledger, fleet: Fleet) -> None:
        self._calls, self._ledger, self._fleet = calls, ledger, fleet
        self._buckets = calls.buckets
        self.counts: Counter[str] = Counter()

    def recover(self, shards: range | set[int]) -> int:
        """Bring shards back that are lost, or are to be written anew; return how many answers were lost."""
        for shard in sorted(shards):
            self._calls.surely(self._buckets.close, shard)
            self._fleet.trusted[shard] = 0
        told = self._fleet.ask(Assert(), Asserted)
        asserted = frozenset[UUID]().union(*(one.runs for one in told))
        orphans: set[UUID] = set()
        logged: set[UUID] = set()
        for shard in sorted(shards):
            self.relay(shard)
            held = self._rebuild(shard, logged)
            orphans |= {hold.run_id for hold in held} - asserted
        self._fleet.tell(Recovered(orphans=frozenset(orphans - logged), logged=frozenset(logged)))
        self.counts["recoveries"] += 1
        # Holds that are not there any more, and holds that are there again though their settle was answered.
        return sum(one.lost for one in told) + len(logged)

    def _rebuild(self, shard: int, logged: set[UUID]) -> list[StoredHold]:
        for _ in range(_TRIES_MAX):
            verified, server = self._calls.surely(self._buckets.server_of, shard)
            asserts = self._calls.surely(self._buckets.asserts_of, shard)
            held = self._calls.surely(self._buckets.held, None, shard)
            if verified != server and self._written(shard, held, logged, (server, asserts)):
                self._fleet.trusted[shard] = 1
                opened = self._calls.surely(self._buckets.verify, shard, expected=server, asserts=asserts)
                if opened:
                    return held
                self._fleet.trusted[shard] = 0
            self.counts["rebuilds that began anew"] += 1
        message = f"L9: shard {shard} is not rebuilt"
        raise Breach(message)

    def _written(self, shard: int, held: list[StoredHold], logged: set[UUID], at: tuple[str, int]) -> bool:
        """Begin an epoch, and write every bucket of a shard by what ledger, log and surviving holds say."""
        log, surely, buckets = self._ledger.log, self._calls.surely, self._buckets
        clients = [client_id for client_id in log.epochs if shard_of(client_id) == shard]
        there = surely(buckets.epochs, clients)
        epochs = {client_id: max(log.epochs[client_id], there[client_id]) + 1 for client_id in clients}
        charged = [hold for hold in held if hold.run_id in log.history]
        marks = [(hold.client_id, hold.run_id, log.history[hold.run_id].settlement_id) for hold in charged]
        surely(buckets.mark_all_logged, marks)
        logged |= {hold.run_id for hold in charged}
        grants = {client_id: [row.grant_id for row in log.grants_of(client_id)] for client_id in clients}
        repaid = surely(buckets.repaid, grants)
        now_ms = surely(buckets.time_ms)
        own: defaultdict[str, list[StoredHold]] = defaultdict(list)
        for hold in sorted(held, key=lambda hold: (hold.created_ms, hold.run_id)):
            if hold.run_id not in log.history:
                own[hold.client_id].append(hold)
        plans = [
            (
                client_id,
                epochs[client_id],
                self._ledger.plan(client_id, own[client_id], repaid.get(client_id, {}), now_ms),
            )
            for client_id in clients
        ]
        log.begin(epochs)
        server, asserts = at
        outcome = surely(buckets.rebuild_all, plans, server=server, asserts=asserts)
        self.counts["buckets rebuilt"] += len(plans)
        return outcome is RebuildOutcome.REBUILT

    # The loops.

    def relay(self, shard: int) -> None:
        """Publish what waits in an outbox."""
        while True:
            entries = self._calls.surely(self._buckets.outbox, shard, older_than_ms=0, count=_RELAYED_MAX)
            if not entries:
                return
            self._fleet.hear()
            self._fleet.publish([entry.event for entry in entries])
            self.counts["events relayed from the outbox"] += len(entries)
            ids = [(shard, entry.entry_id) for entry in entries]
            self._calls.surely(self._buckets.forget, ids)

    def post(self) -> set[int]:
        """Bring postings into their buckets; return the shards that are to be rebuilt for one."""
        wanted = set()
        for (client_id, epoch), rows in self._ledger.waiting().items():
            outcome = self._calls.surely(self._buckets.post, client_id, epoch, rows)
            self.counts[f"post {outcome.name}"] += 1
            if outcome in (PostOutcome.POSTED, PostOutcome.ALREADY):
                self._ledger.log.mark_applied(client_id, epoch, rows)
            elif outcome in _LOST:
                wanted.add(shard_of(client_id))
        return wanted

    def lapse(self) -> None:
        """End the grants whose time is over."""
        for shard in range(SHARDS):
            lapsed = self._calls.surely(self._buckets.lapse, shard, _GRANTS_MAX)
            entered = self._ledger.end(lapsed)
            self.counts["grants ended"] += len(entered)
            if entered:
                self._calls.surely(self._buckets.forget_lapsed, entered)

    def settle_down(self) -> None:
        """Bring all that is on its way where it belongs; all processes rest."""
        for _ in range(_TRIES_MAX):
            for shard in range(SHARDS):
                self.relay(shard)
            if wanted := self.post():
                self.counts["shards rebuilt for a posting"] += len(wanted)
                self.recover(wanted)
            elif not self._ledger.log.waiting():
                # Last: what a posting gives back to a grant that has ended is entered once more.
                self.lapse()
                return
        message = f"L9: postings are left: {self._ledger.log.waiting()}"
        raise Breach(message)
