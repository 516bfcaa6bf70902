"""What befalls the fleet from outside: kills, stalls, losses, interruptions, duplicates; each is a step."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from tests.simulation.broker import is_marker
from tests.simulation.faults import Killed

if TYPE_CHECKING:
    from tests.simulation.world import World


#: Steps that are faults, and how they are told.
FAULTS: Final = {
    "killed processes": "processes killed",
    "redeploy": "processes redeployed",
    "killed rebuilders": "rebuilders killed",
    "stall_a_process": "processes that stood still",
    "set_a_clock": "clocks set",
    "losses": "Redis lost, or its tail",
    "lose_a_bucket": "buckets lost",
    "interrupt_redis": "Redis cut off, or back",
    "interrupt_broker": "broker cut off, or back",
    "stand_still": "jumps of time",
    "partition": "partitions of one process",
    "reorder": "events that changed places",
    "deliver_twice": "tasks delivered twice",
    "publish_twice": "events that came twice",
}


class Mishaps:
    """The faults that no single call brings about."""

    def __init__(self, world: World) -> None:
        self._world = world

    def kill_a_process(self) -> None:
        """Kill one, between two of its steps: it has forgotten nothing while it lived."""
        self._world.observed.excuses.look()
        self._world.kill(self._world.chance.whole(0, len(self._world.processes) - 1))

    def stall_a_process(self) -> None:
        """Let a process stand still, perhaps until its leases have run out."""
        self._world.chance.one_of(self._world.processes).stalled_until_ms = (
            self._world.clock.elapsed_ms + self._world.chance.whole(0, 200_000)
        )

    def redeploy(self) -> None:
        """Stop a process warmly, and start another in its place."""
        world = self._world
        number = world.chance.whole(0, len(world.processes) - 1)
        world.observed.excuses.look()
        try:
            world.processes[number].stop()
        except Killed:
            world.kill(number)
        else:
            world.replace(number, killed=False)

    def lose_redis(self) -> None:
        """Lose it now and then, whoever knows of what: it comes back with all that it had, with less, or with nothing.

        Not too often: the rebuild that follows mends whatever has gone wrong before it.
        """
        if not self._world.chance.once_in(3):
            return
        redis = self._world.redis
        self._lose(self._world.chance.one_of((redis.flush, redis.restart, redis.restart_from_snapshot)))

    def lose_redis_without_broker(self) -> None:
        """Let the broker go away, and Redis forget after a while: only processes know what they have settled since."""
        if self._world.chance.once_in(3):
            self._world.broker.up = False
            self._world.doom_ms = self._world.clock.elapsed_ms + self._world.chance.whole(2_000, 40_000)

    def meet_doom(self) -> None:
        """Lose Redis, if it was to be lost now."""
        world = self._world
        if world.doom_ms is not None and world.clock.elapsed_ms >= world.doom_ms:
            world.doom_ms = None
            self._lose(world.chance.one_of((world.redis.flush, world.redis.restart_from_snapshot)))

    def _lose(self, lose: Callable[[], None]) -> None:
        self._world.counts["losses"] += 1
        knew = self._world.observed.excuses.known_to_redis()
        lose()
        self._world.tell_of_all(f"Redis lost: {lose.__name__}")
        self._world.observed.redis_lost(knew)

    def lose_a_bucket(self) -> None:
        """Lose one key."""
        self._world.redis.lose_bucket(self._world.chance.one_of(self._world.client_ids))

    def take_a_snapshot(self) -> None:
        """Have Redis write to disk."""
        self._world.redis.snapshot()

    def interrupt_redis(self) -> None:
        """Let Redis stop answering, or answer again."""
        self._world.redis_up = not self._world.redis_up

    def interrupt_broker(self) -> None:
        """Let the broker stop answering, or answer again."""
        self._world.broker.up = not self._world.broker.up

    def deliver_twice(self) -> None:
        """Deliver a message to a second worker while the first still runs it."""
        if self._world.unacked:
            message = min(self._world.unacked, key=lambda found: (found.task_id, found.retries))
            self._world.broker.tasks.append(replace(message))

    def set_a_clock(self) -> None:
        """Set a machine's clock: a little wrong, or hours ahead. Behind, only within what the reaper allows.

        So one that is ahead is right again with the next process: set back within a run, its success would be older
        than its reserve.
        """
        chance = self._world.chance
        process = chance.one_of(self._world.processes)
        offset_ms = chance.whole(400, 20_000_000) if chance.once_in(4) else chance.whole(-400, 400)
        is_ahead = process.clock.offset_ms > 400
        process.clock.offset_ms = max(process.clock.offset_ms, offset_ms) if is_ahead else offset_ms

    def stand_still(self) -> None:
        """Let time jump for all at once, as it does for machines that were suspended."""
        self._world.books.live_until(self._world.clock.ms + self._world.chance.whole(1_000, 1_500_000))

    def partition(self) -> None:
        """Cut a process off from Redis or the broker, which others reach."""
        world, server = self._world, self._world.chance.one_of(("redis", "broker"))
        process = world.chance.one_of(world.processes)
        process.cut_off[server] = world.clock.elapsed_ms + world.chance.whole(1_000, 120_000)

    def reorder(self) -> None:
        """Let two events of a queue change places, as those of two publishers may; none that a consumer has taken."""
        number = self._world.chance.whole(0, len(self._world.broker.usage) - 1)
        queue, taken = self._world.broker.usage[number], len(self._world.batches[number])
        if len(queue) - taken > 1:
            at = self._world.chance.whole(taken, len(queue) - 2)
            if not any(is_marker(body) for body in (queue[at], queue[at + 1])):
                queue[at], queue[at + 1] = queue[at + 1], queue[at]

    def publish_twice(self) -> None:
        """Have a usage event come twice."""
        if self._world.log.history and self._world.chance.once_in(2):
            queue = self._world.chance.one_of(self._world.broker.usage)
            if queue:
                queue.append(queue[0])
