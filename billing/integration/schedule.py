"""What beat runs, and why. Everything is a crontab: an interval restarts its countdown when beat's store is lost.

The fulfillment worker's own loops do the short work each second; beat is the net below them, so each entry may be
missed, doubled or late without harm. An entry expires before the next one is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from celery.schedules import crontab

QUEUE: Final = "billing.maintenance"


def build_schedule(conf: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Return beat's entries for a Celery configuration; `billing_beat_*`-free entries of the user's own are kept."""
    own: Mapping[str, dict[str, Any]] = (conf or {}).get("beat_schedule") or {}
    return {
        **own,
        # Events that no worker published: its fulfillment worker may be down, this one may serve from any worker.
        "billing.outbox.relay": _entry("billing.outbox.relay", crontab(), expires_seconds=50),
        # Holds of dead workers, should no fulfillment worker's loop run.
        "billing.holds.reap": _entry("billing.holds.reap", crontab(), expires_seconds=50),
        # Grants whose bucket was recovering, or whose giver died between PostgreSQL and Redis.
        "billing.grants.apply": _entry("billing.grants.apply", crontab(), expires_seconds=50),
        # Usage queues without a consumer: a bounded drain, which a living consumer keeps out.
        "billing.fulfillment.drain": _entry("billing.fulfillment.drain", crontab(minute="*/5"), expires_seconds=240),
        # Months of the usage history, a year ahead: daily, so that eleven months of failures do no harm.
        "billing.partitions.make": _entry("billing.partitions.make", crontab(minute=17, hour=3), expires_seconds=3_600),
    }


def _entry(task: str, schedule: crontab, *, expires_seconds: int) -> dict[str, Any]:
    return {"task": task, "schedule": schedule, "options": {"queue": QUEUE, "expires": expires_seconds}}
