"""Asks for the rebuild of buckets from the ledger and the log, and waits until it is done (L6).

The fulfillment worker rebuilds, not the caller: a request is a row, which stands until a rebuild that began after it
has committed. Asking is safe at any time, also while a rebuild runs, and asking again asks for nothing more.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence
from typing import Final

from sqlalchemy import Connection, text

from billing.admin.access import runtime_for
from billing.catalog.clients import get_client
from billing.connections import postgres
from billing.core.errors import InvalidValue, Unreachable
from billing.core.settings import Settings
from billing.ledger.rebuilds import request_rebuild, requested
from billing.recovery.facts import shards_with_clients
from billing.schema.advisory import Guard
from billing.schema.fleet import check_fleet
from billing.task.runtime import Runtime

WAIT_SECONDS: Final = 300.0
#: L9: the longest that one call waits.
WAIT_SECONDS_MAX: Final = 86_400.0
_POLL_SECONDS: Final = 0.5


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Rebuilding:
    """How far it is: the `shards` that were asked for, and those of them that still wait.

    `led`: a fulfillment worker rebuilds now, these shards or others. `silent`: those that wait, and whose Redis did not
    answer at the last look; no worker can rebuild them before it does.
    """

    shards: tuple[int, ...]
    waiting: tuple[int, ...]
    led: bool
    silent: tuple[int, ...] = ()

    @property
    def done(self) -> bool:
        """Whether every shard is rebuilt, and open."""
        return not self.waiting


def rebuild(
    settings: Settings,
    client_id: str | None,
    *,
    wait_seconds: float = WAIT_SECONDS,
    tell: Callable[[Rebuilding], None] = lambda _: None,
    pause: Callable[[float], None] = time.sleep,
    now: Callable[[], float] = time.monotonic,
) -> Rebuilding:
    """Ask for the rebuild of a client's shard (None: of all shards), and wait so long at most; 0 only asks.

    `tell` is called with each look. What still waits at the end stays asked for, and a shard that does not answer keeps
    no other from being waited for (L10). Nothing is admitted on a shard while
    it is rebuilt, which takes a third of a lease and some seconds. Raises `UnknownClient`, and `Unreachable`.
    """
    if not 0 <= wait_seconds <= WAIT_SECONDS_MAX:
        raise InvalidValue("wait_seconds", wait_seconds, f"must be from 0 to {WAIT_SECONDS_MAX:g}")
    runtime = runtime_for(settings)
    shards = _ask(runtime, client_id)
    deadline = now() + wait_seconds
    waiting = shards
    while True:
        # Looked at before it is waited for: with no shard at all there is nothing to wait for.
        left = deadline - now()
        seen = _look(runtime, shards, waiting, last=wait_seconds > 0 >= left)
        waiting = seen.waiting
        tell(seen)
        if seen.done or left <= 0:
            return seen
        pause(min(_POLL_SECONDS, left))


def _ask(runtime: Runtime, client_id: str | None) -> tuple[int, ...]:
    with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
        check_fleet(connection, runtime.settings)
        if client_id is None:
            shards, reason = sorted(shards_with_clients(connection)), "asked for, with all others"
        else:
            shards, reason = [get_client(connection, client_id).shard], f"asked for, for client {client_id}"
        for shard in shards:
            request_rebuild(connection, shard, reason)
    return tuple(shards)


def _look(runtime: Runtime, shards: tuple[int, ...], waiting: tuple[int, ...], *, last: bool) -> Rebuilding:
    """Return the shards that still wait: for their rebuild to commit, or, rebuilt, to be opened.

    The `last` look also asks those that nobody has rebuilt yet, to say which of them do not answer.
    """
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        rows, led = requested(connection), _is_led(connection)
    closed, silent = _closed(runtime, [shard for shard in waiting if last or shard not in rows])
    still = tuple(shard for shard in waiting if shard in rows or shard in closed or shard in silent)
    return Rebuilding(shards=shards, waiting=still, led=led, silent=tuple(sorted(silent)))


def _closed(runtime: Runtime, shards: Sequence[int]) -> tuple[set[int], set[int]]:
    """Return the shards that are closed, and those whose Redis is silent: a node is waited for once (L10)."""
    closed, silent, nodes = set(), set(), set()
    for shard in shards:
        node = runtime.buckets.node_of(shard)
        if node not in nodes:
            try:
                verified, current = runtime.buckets.server_of(shard)
            except Unreachable:
                nodes.add(node)
            else:
                closed |= {shard} if verified != current else set()
                continue
        silent.add(shard)
    return closed, silent


def _is_led(connection: Connection) -> bool:
    return bool(connection.execute(text(_LED), {"guard": int(Guard.RECOVERY)}).scalar_one())


#: Whether some fulfillment worker holds the lock under which rebuilds are led.
_LED: Final = """
    SELECT EXISTS (
        SELECT FROM pg_locks
         WHERE locktype = 'advisory' AND classid = :guard AND objid = 0 AND objsubid = 2 AND granted
           AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))
"""
