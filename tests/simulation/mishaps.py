"""What befalls the fleet from outside: kills, stalls, losses, interruptions, duplicates; each is a step."""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING

from tests.simulation.faults import Killed

if TYPE_CHECKING:
    from tests.simulation.world import World


class Mishaps:
    """The faults that no single call brings about."""

    def __init__(self, world: World) -> None:
        self._world = world

    def kill_a_process(self) -> None:
        """Kill one."""
        self._world.kill(self._world.chance.whole(0, len(self._world.processes) - 1))

    def stall_a_process(self) -> None:
        """Let a process stand still, perhaps until its leases have run out."""
        self._world.chance.one_of(self._world.processes).stalled_until_ms = (
            self._world.clock.elapsed_ms + self._world.chance.whole(0, 200_000)
        )

    def redeploy(self) -> None:
        """Stop a process warmly, and start another in its place."""
        number = self._world.chance.whole(0, len(self._world.processes) - 1)
        with contextlib.suppress(Killed):
            self._world.processes[number].stop()
        self._world.kill(number)

    def lose_redis(self) -> None:
        """Lose it now and then, whoever knows of what: it comes back with all that it had, with less, or with nothing.

        Not too often: the rebuild that follows mends whatever has gone wrong before it.
        """
        if not self._world.chance.once_in(3):
            return
        redis = self._world.redis
        self._world.counts["losses"] += 1
        lose = self._world.chance.one_of((redis.flush, redis.restart, redis.restart_from_snapshot))
        lose()
        self._world.tell_of_all(f"Redis lost: {lose.__name__}")
        self._world.observed.redis_lost(forgot=lose != redis.restart)

    def lose_a_bucket(self) -> None:
        """Lose one key."""
        self._world.redis.lose_bucket(f"client-{self._world.chance.whole(0, len(self._world.log.epochs) - 1)}")

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
        """Set a machine's clock, within what the reaper allows."""
        process = self._world.chance.one_of(self._world.processes)
        process.clock.offset_ms = self._world.chance.whole(-400, 400)

    def publish_twice(self) -> None:
        """Have a usage event come twice."""
        if self._world.log.history and self._world.chance.once_in(2):
            queue = self._world.chance.one_of(self._world.broker.usage)
            if queue:
                queue.append(queue[0])
