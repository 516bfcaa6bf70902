"""Redis: the twin, and how it loses what it was told.

A restart comes back with everything or with an older snapshot, as an append-only file that lacks its end does; a
flush with nothing. After each the server, or its trust, is another one.
"""

from __future__ import annotations

import pickle
import uuid

from billing.core.settings import Settings
from billing.credits.options import options_of
from billing.credits.twin.buckets import Twin
from billing.credits.twin.memory import Memory, SettledRun
from tests.simulation.chance import SimulatedClock


class Redis:
    """One server."""

    def __init__(self, settings: Settings, clock: SimulatedClock) -> None:
        self._settings = settings
        self._memory = Memory(clock)
        self.buckets = Twin(self._memory, **options_of(settings))
        self._snapshot = pickle.dumps(self._memory.shards)

    @property
    def server(self) -> str:
        """The id of the server process."""
        return self._memory.server

    def snapshot(self) -> None:
        """Write to disk what there is now."""
        self._snapshot = pickle.dumps(self._memory.shards)

    def flush(self) -> None:
        """Lose everything; the server goes on."""
        self._memory.wipe()

    def restart(self) -> None:
        """Come back with everything."""
        self._memory.restart()

    def restart_from_snapshot(self) -> None:
        """Come back with what was on disk."""
        self._memory.restart()
        self._memory.shards = pickle.loads(self._snapshot)  # noqa: S301 - our own, of this process

    def remembers(self, run_id: uuid.UUID) -> bool:
        """Whether it knows that a run is settled."""
        return any(isinstance(shard.runs.get(run_id), SettledRun) for shard in self._memory.shards.values())

    def lose_bucket(self, client_id: str) -> None:
        """Lose one key."""
        self._memory.lose_bucket(client_id, self._settings.shards)
