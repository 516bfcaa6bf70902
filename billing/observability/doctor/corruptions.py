"""The doctor's look at corrupted keys: each one that is not rebuilt yet. It says nothing of none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from billing.connections import postgres
from billing.core.errors import NotMigrated, Unreachable
from billing.ledger.corruptions import lasting
from billing.observability.doctor.finding import Finding, fail
from billing.task.runtime import Runtime

#: Corruptions that are named (L9).
_NAMED_MAX: Final = 10
_ADVICE: Final = "a worker with --fulfillment rebuilds it; find out who else writes to billing's Redis"


def examine_corruptions(runtime: Runtime) -> Iterator[Finding]:
    """Name the keys that billing did not write, until their buckets are rebuilt."""
    try:
        with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
            found = lasting(connection, _NAMED_MAX)
    except (Unreachable, NotMigrated):
        return  # that is PostgreSQL's own finding
    for one in found:
        yield fail("buckets", f"client {one.client_id}: the key {one.redis_key} is corrupt: {one.found}", _ADVICE)
