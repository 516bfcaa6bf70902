"""Says which charges two losses have cost, the stated limit: who knew of one is gone, and Redis lost what it had of it.

Each excuse names both: the loss in which Redis forgot the run's hold or its event and has had neither since, and the
end of the process that knew. Whatever else nobody knows of any more has broken L3.
"""

from __future__ import annotations

import collections
import json
import uuid
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from tests.simulation.broken import LawBroken

if TYPE_CHECKING:
    from billing.credits.values import Hold, StoredHold
    from tests.simulation.process import Process
    from tests.simulation.world import World

_BOTH: Final = "its process and Redis' tail were both lost"
_STOPPED: Final = "Redis' tail was lost, and the broker was away until its process had stopped"


class Excuses:
    """Who knows of each charge that is not in the log, and what has been lost of it."""

    def __init__(self, world: World, buckets: Any) -> None:
        self._world, self._buckets = world, buckets
        #: Runs that succeeded and are not in the log.
        self.unsafe: set[uuid.UUID] = set()
        #: Those of them that two losses have cost: they are counted.
        self.excused: set[uuid.UUID] = set()
        #: Runs of whose events the broker did not take one.
        self.never_taken: set[uuid.UUID] = set()
        self._refusing: set[int] = set()
        #: Settlement to the process whose attempt it is; and run to the settlement that a bucket took.
        self.attempts: dict[str, Process] = {}
        self.settlers: dict[uuid.UUID, str] = {}
        #: Run to the processes whose bodies of it came to their ends, and to when the first did: a result backend
        #: writes over no success.
        self._finishers: dict[uuid.UUID, list[Process]] = {}
        self._stored_ms: dict[uuid.UUID, int] = {}
        #: Run to the last loss in which Redis forgot its hold or event; and those of which it has nothing since.
        self._lost_in: dict[uuid.UUID, int] = {}
        self._gone: set[uuid.UUID] = set()
        #: Runs whose charge the reaper gave back with the hold of a second body.
        self._given_back: set[uuid.UUID] = set()
        #: Attempt's token to when its run reserved first; and run to that of the attempt which has the hold.
        self._begun_ms: dict[str, int] = {}
        self._held_since_ms: dict[uuid.UUID, int] = {}
        #: Events that the reaper has settled and the broker has not yet: shard, event, outbox entry. And the runs of
        #: those whose reaper's process died.
        self.reaped: list[tuple[int, bytes, str | None]] = []
        self._died_with_reaper: set[uuid.UUID] = set()
        self._killed: set[Process] = set()
        #: What those that stopped in good order could give to nobody.
        self._left: set[uuid.UUID] = set()
        #: What still ran there at the end of its time, with its result stored perhaps: killed, like a process.
        self._cut_off: set[tuple[Process, uuid.UUID]] = set()
        #: What the processes could have owed: at each loss, and those that have ended since the last rest.
        self._bounds: dict[int, int] = {}
        self._ended = self.losses = 0
        self._excused_of: collections.Counter[int] = collections.Counter()

    def stopping(self) -> None:
        """Begin to note which queues take nothing of a process that stops: what follows is not tried."""
        self._refusing.clear()

    def not_taken(self, queue: int, body: bytes) -> None:
        """Remember that the broker has not confirmed an event, which a process has tried to publish."""
        self.never_taken |= runs_of([body])
        self._refusing.add(queue)

    def finished(self, run_id: uuid.UUID, process: Process, *, is_safe: bool) -> None:
        """Remember that a run succeeded, and which process knows of it."""
        if not is_safe:
            self.unsafe.add(run_id)
        self._finishers.setdefault(run_id, []).append(process)
        self._stored_ms.setdefault(run_id, self._world.clock.elapsed_ms)

    def logged(self, run_id: uuid.UUID) -> None:
        """Remember that a charge is safe; a late message may have brought one that nobody knew of."""
        self.unsafe.discard(run_id)
        if run_id in self.excused:
            self.excused.discard(run_id)
            self._world.counts["charged after all by what came late"] += 1

    def held(self, hold: Hold, before: StoredHold | None, *, asserted: bool = False) -> None:
        """Remember that Redis has a hold of a run, again perhaps, and since when the attempt that has it holds."""
        begun = self._world.clock.elapsed_ms
        if not asserted and before is not None:
            begun = self._held_since_ms.get(hold.run_id, begun)
        self._begun_ms.setdefault(hold.token, begun)
        if before is None or not asserted:
            self._held_since_ms[hold.run_id] = self._begun_ms[hold.token]
        self._gone.discard(hold.run_id)

    def settled(self, run_id: uuid.UUID, settlement_id: str) -> None:
        """Remember that Redis has the charge of a run."""
        self.settlers[run_id] = settlement_id
        self._gone.discard(run_id)

    def expired(self, run_id: uuid.UUID) -> None:
        """Look at a run whose hold the reaper gave back: somebody has to know of a success.

        Nobody does where the hold was a second body's: Redis lost the first one's, which was made before the success,
        its process died with its charge, and so did the second one. The stored result is older than the hold then, as
        one of an earlier submission is, and the reaper charges neither.
        """
        if run_id not in self.unsafe:
            return
        if run_id in self._lost_in and self._stored_ms[run_id] <= self._held_since_ms[run_id]:
            self._gone.add(run_id)
            self._given_back.add(run_id)
        self.look()

    def known_to_redis(self) -> set[uuid.UUID]:
        """Return the runs that Redis has a hold or an event of."""
        return {
            hold.run_id for shard in self._shards() for hold in self._buckets.held(None, shard)
        } | self.in_outboxes()

    def redis_lost(self, knew: Iterable[uuid.UUID]) -> None:
        """Remember what Redis has of it no more, and what the processes may owe at this moment."""
        knows = self.known_to_redis()
        self.losses += 1
        owed = sum(process.owes_at_most for process in self._world.processes) + len(self.reaped)
        self._bounds[self.losses] = self._ended + owed
        forgot = set(knew) - knows
        self._lost_in.update(dict.fromkeys(forgot, self.losses))
        self._gone = (self._gone | forgot) - knows
        self.look()

    def ended(self, process: Process, *, killed: bool) -> None:
        """Look at what a process took with it. One that stopped in good order has tried to give the broker all."""
        self._ended += process.owes_at_most
        if killed:
            self._killed.add(process)
        else:
            self._left |= {run_id for run_id in process.knows() if process.queue_of(run_id) in self._refusing}
            self._cut_off |= {(process, message.run_id) for message in process.unacked()}
        self.look()

    def reaper_died(self) -> None:
        """Forget what the reaper's process had kept."""
        self._died_with_reaper |= self._reaped()
        self._ended += len(self.reaped)
        self.reaped.clear()
        self.look()

    def rested(self) -> None:
        """Begin anew: nothing is owed."""
        self._ended = 0

    def look(self) -> None:
        """Excuse the charges that nobody knows of any more, if two losses explain it; each other one has broken L3."""
        for run_id in sorted(self.unsafe - self.excused - self._known() if self.unsafe else ()):
            why, story = self._why(run_id), self._world.story(run_id)
            if run_id not in self._gone:
                raise LawBroken(f"L3: nobody knows of the charge of run {run_id}, and Redis lost nothing: {story}")
            loss = self._lost_in[run_id]
            self._excused_of[loss] += 1
            if self._excused_of[loss] > self._bounds[loss]:
                raise LawBroken(f"L3: one loss cost more charges than all owed, {self._bounds[loss]}: {story}")
            self.excused.add(run_id)
            self._world.counts[f"excused: {why}"] += 1

    def _why(self, run_id: uuid.UUID) -> str:
        """Return why nobody knows: a process that lives may forget nothing, nor one that stopped in good order.

        One that was told of a lost bucket before it died has tried to publish the charge: the broker was away, or it
        died in the attempt.
        """
        settler = self.attempts.get(self.settlers.get(run_id, ""))
        if settler is None and run_id in self._died_with_reaper:
            return _BOTH
        knew = self._finishers[run_id] if settler is None else [settler]
        living = [process for process in self._world.processes if process in knew]
        # What the reaper has settled no process need know of.
        if living and (settler is not None or run_id not in self.settlers):
            story = self._world.story(run_id)
            raise LawBroken(f"L3: process {living[0].number} lives and forgot the charge of run {run_id}: {story}")
        told = [process for process in knew if run_id in process.refused]
        stopped = not any(process in self._killed or (process, run_id) in self._cut_off for process in knew)
        if (stopped and run_id not in self._left) or (told and run_id not in self.never_taken):
            how = "stopped in good order" if stopped else "was killed"
            raise LawBroken(f"L3: a process {how} and kept the charge of run {run_id}: {self._world.story(run_id)}")
        if run_id in self._given_back:
            return f"{_BOTH}, and who ran it again"
        if stopped:
            return _STOPPED
        return f"{_BOTH} before its event was out" if told else _BOTH

    def _known(self) -> set[uuid.UUID]:
        """Return the runs that the broker, Redis, a living process or a message knows of."""
        world = self._world
        known = self.at_the_broker() | self.known_to_redis() | self._reaped()
        for process in world.processes:
            known |= process.knows()
        return known | {message.run_id for message in (*world.broker.tasks, *world.unacked)}

    def in_outboxes(self) -> set[uuid.UUID]:
        """Return the runs whose events wait in Redis."""
        found = (self._buckets.outbox(shard, older_than_ms=0, count=1_000_000) for shard in self._shards())
        return runs_of(entry.event for entries in found for entry in entries)

    def at_the_broker(self) -> set[uuid.UUID]:
        """Return the runs whose events wait at the broker."""
        return runs_of(body for queue in self._world.broker.usage for body in queue)

    def _reaped(self) -> set[uuid.UUID]:
        return runs_of(event for _, event, _ in self.reaped)

    def _shards(self) -> range:
        return range(self._world.settings.shards)


def runs_of(bodies: Iterable[bytes]) -> set[uuid.UUID]:
    """Return the runs of usage events; a marker is of none."""
    return {uuid.UUID(found) for body in bodies if (found := json.loads(body).get("run_id"))}
