"""After the storm: waits, within bounds, until nothing is on its way any more, in processes, queues and outboxes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import psycopg
import redis
from sqlalchemy.exc import SQLAlchemyError

from billing.core.errors import BillingError
from billing.ledger import postings, rebuilds
from billing.recovery.flush import Flush
from tests.chaos.storm.load import Load
from tests.chaos.storm.server_faults import is_redis_whole
from tests.chaos.storm.site import SHARDS, Site
from tests.chaos.storm.witness import UNANSWERED, witnessed

#: What each step of coming to rest may take; far above what a busy machine needs.
REST_SECONDS: Final = 240.0
_LOOK_SECONDS: Final = 1.0
#: Between these two is what L5 bounds.
ALL_ENDED, NO_HOLD = "every task has ended", "no hold"
_POSTINGS_READ: Final = 10


class Restless(Exception):
    """The fleet did not come to rest within its bound; the message says what was still on its way."""


def come_to_rest(site: Site, load: Load, found: dict[str, float]) -> None:
    """Wait for rest; note in `found` how many seconds after the end of all faults each part of it was there."""
    began = time.monotonic()
    steps: tuple[tuple[str, Callable[[], bool]], ...] = (
        ("Redis is trusted", lambda: is_redis_whole(site)),
        ("all grants are written", load.finish_grants),
        ("every client has a bucket", lambda: _all_known(site, load)),
        (ALL_ENDED, lambda: _all_ended(site, load)),
        (NO_HOLD, lambda: _no_hold(site)),
        ("no hold, no outbox, no posting", lambda: _is_quiet(site)),
        ("the queues are empty", lambda: _flushed(site)),
        ("still no hold, no outbox, no posting", lambda: _is_quiet(site)),
    )
    for what, condition in steps:
        _wait(condition, what)
        found[what] = round(time.monotonic() - began, 1)


def _wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + REST_SECONDS
    while not _holds(condition):
        if time.monotonic() > deadline:
            raise Restless(f"not within {REST_SECONDS:g} s: {what}")
        time.sleep(_LOOK_SECONDS)


def _holds(condition: Callable[[], bool]) -> bool:
    try:
        return condition()
    except (BillingError, SQLAlchemyError, psycopg.Error, redis.RedisError, OSError):
        return False


def _all_known(site: Site, load: Load) -> bool:
    missing = set(load.book.clients) - site.fleet.buckets.balances(load.book.clients).keys()
    load.use_again(sorted(missing))
    return not missing


def _all_ended(site: Site, load: Load) -> bool:
    load.outcome()
    load.book.unanswered = witnessed(site.directory, UNANSWERED)
    return not load.book.never_ended()


def _no_hold(site: Site) -> bool:
    return is_redis_whole(site) and not any(site.fleet.buckets.held(None, shard) for shard in range(SHARDS))


def _is_quiet(site: Site) -> bool:
    buckets = site.fleet.buckets
    if not _no_hold(site) or any(buckets.outbox_depth(shard) for shard in range(SHARDS)):
        return False
    with site.fleet.runtime.engine.connect() as connection:
        if rebuilds.requested(connection) or postings.waiting(connection, _POSTINGS_READ):
            return False
    return _no_hold(site)


def _flushed(site: Site) -> bool:
    """Whether a marker has come through every usage queue: everything published before is in the log."""
    flush = Flush(site.fleet.runtime, time.sleep, marker_seconds=REST_SECONDS / 4)
    return set(flush.arrived(range(SHARDS), outboxes=False)) == set(range(SHARDS))
