"""Keeps the holds of running attempts: renews them, and asserts them as they are now on a shard that recovers (L5, L6).

What one shard does not take keeps no other's hold from it (L10), and a node that falls silent is waited for once (L9).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import msgspec

from billing.core.errors import Refusing, Unreachable
from billing.core.shards import shard_of
from billing.credits.values import RenewOutcome
from billing.task.run import Run

if TYPE_CHECKING:
    from billing.task.runtime import Runtime

logger = logging.getLogger(__name__)


def keep_holds(runtime: Runtime, runs: Sequence[Run], draft_of: Callable[[Run], bytes]) -> None:
    """Renew the holds of runs once. What is not renewed is logged, and has its turn again with the next call."""
    buckets, lease_ends = runtime.buckets, lease_end(runtime)
    outcomes = buckets.renew_each([(run.identity.client_id, run.identity.run_id, None) for run in runs])
    failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
    if failed:
        logger.warning("billing: %d of %d leases are not renewed: %s", len(failed), len(runs), failed[0])
    silent: set[str] = set()
    for run, outcome in zip(runs, outcomes, strict=True):
        if outcome is RenewOutcome.RENEWED:
            run.held_until = lease_ends
        elif outcome is RenewOutcome.RECOVERING:
            node = buckets.node_of(shard_of(run.identity.client_id, runtime.settings.shards))
            if node not in silent and not _is_answered(runtime, run, draft_of):
                silent.add(node)


def lease_end(runtime: Runtime) -> float:
    """Return until when a hold that is reserved or renewed from now on is surely there, by the monotonic clock."""
    return runtime.clock.monotonic() + runtime.settings.lease_seconds


def _is_answered(runtime: Runtime, run: Run, draft_of: Callable[[Run], bytes]) -> bool:
    """Assert a hold; return whether its server answered. What else goes wrong is this run's own affair."""
    run_id = run.identity.run_id
    try:
        draft = draft_of(run)
    except Exception as error:  # noqa: BLE001 - the prices are away, or its usage cannot be rated
        logger.warning("billing: the hold of run %s is not asserted: %s", run_id, error)
        return True
    try:
        runtime.buckets.assert_hold(msgspec.structs.replace(run.hold, lines=draft))
    except Unreachable as error:
        logger.warning("billing: the hold of run %s is not asserted: %s", run_id, error)
        return isinstance(error, Refusing)
    except Exception:
        logger.exception("billing: the hold of run %s is not asserted", run_id)
    return True
