"""The twin: buckets in memory, with the verbs, outcomes, values, errors and event bytes of `Buckets` on a server.

It is the specification in Python, written from the contract: grants are objects, one lock makes each verb one step,
and the clock is passed in. What a server can lose, `Memory` can lose.
"""

from __future__ import annotations

from collections.abc import Sequence

from billing.credits.twin.counting import Counting
from billing.credits.twin.granting import Granting
from billing.credits.twin.memory import Memory
from billing.credits.twin.posting import Posts
from billing.credits.twin.reading import Reading
from billing.credits.twin.settling import Settling
from billing.credits.twin.trail import Trail
from billing.credits.twin.trust import Trust


class Twin(Settling, Granting, Posts, Reading, Trust, Counting, Trail):
    """The buckets in one memory; several twins on one memory are as several processes on one server.

    Shards begin untrusted, as on a new server: `verify` opens them.
    """

    def __init__(
        self,
        memory: Memory,
        *,
        shards: int,
        lease_seconds: float,
        settled_retention_seconds: float,
        outbox_entries_max: int,
        alert_percents: Sequence[int] = (20, 5),
    ) -> None:
        self.shards = shards
        self._memory = memory
        self._lease_ms = round(lease_seconds * 1_000)
        self._retention_ms = round(settled_retention_seconds * 1_000)
        self._outbox_entries_max = outbox_entries_max
        self._percents = tuple(alert_percents)
