"""What beat runs, and why. Everything is a crontab: an interval restarts its countdown when beat's store is lost.

The relay, the reaper, open grants and recovery run each second in the fulfillment worker (`services.py`); beat covers
what is a minute or longer. Each entry may be missed, doubled or late without harm, and expires before the next is due.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from celery.schedules import crontab

QUEUE: Final = "billing.maintenance"


def build_schedule(conf: Mapping[str, Any] | None = None) -> dict[str, dict[str, Any]]:
    """Return beat's entries for a Celery configuration: the user's own, and billing's, which win on the same name."""
    own: Mapping[str, dict[str, Any]] = (conf or {}).get("beat_schedule") or {}
    return {
        **own,
        # That beat is alive: a message of its own, each minute, so that it is known within minutes that beat stopped,
        # hours before an invoice lacks something. The other entries come too rarely, and an app may leave one out.
        "billing.beat.seen": _entry("billing.beat.seen", crontab(), expires_seconds=55),
        # The laws that nobody compares, and liveness: at most about a minute of work, a slice of each law that goes on
        # where the last one ended. Two minutes before reconciliation, so that neither waits for the other.
        "billing.laws.check": _entry("billing.laws.check", crontab(minute="9-59/15"), expires_seconds=840),
        # Usage queues that lost their consumer thread: a bounded drain, which a living consumer keeps out.
        "billing.fulfillment.drain": _entry("billing.fulfillment.drain", crontab(minute="*/5"), expires_seconds=240),
        # Alerts that no fulfillment worker's loop delivered: each is claimed by one, so a living loop does no harm.
        "billing.alerts.deliver": _entry("billing.alerts.deliver", crontab(minute="*/5"), expires_seconds=240),
        # Allowances whose period has begun: each is granted once, by whoever comes first, and later if nobody came.
        "billing.allowances.grant": _entry("billing.allowances.grant", crontab(minute="*/5"), expires_seconds=240),
        # Balances that fell short and requests that wait, where no fulfillment worker's loop looked: claimed by one.
        "billing.top_ups.run": _entry("billing.top_ups.run", crontab(minute="3-59/5"), expires_seconds=200),
        # Parked tasks that can be paid by now, where no fulfillment worker's loop looked: a client has one starter.
        "billing.parked.start": _entry("billing.parked.start", crontab(minute="1-59/5"), expires_seconds=200),
        # Months of the usage history, a year ahead: daily, so that eleven months of failures do no harm.
        "billing.partitions.make": _entry("billing.partitions.make", crontab(minute=17, hour=3), expires_seconds=3_600),
        # One increment per client and month: every four hours is often enough for an invoice, and few for Stripe. At an
        # odd minute, since a month's last usage is planned soon after midnight but not in everybody's first minute.
        "billing.stripe.plan": _entry("billing.stripe.plan", crontab(minute=7, hour="*/4"), expires_seconds=3_600),
        # A billing period that is over takes usage for as long as the account's grace: by default an hour, in which it
        # is planned three times or four, nine minutes before a push. It asks Stripe nothing, and finds few clients.
        "billing.stripe.close": _entry("billing.stripe.close", crontab(minute="3-59/15"), expires_seconds=600),
        # Five minutes after each plan, and every quarter of an hour for what Stripe did not take or did not answer.
        "billing.stripe.push": _entry("billing.stripe.push", crontab(minute="12-59/15"), expires_seconds=840),
        # Eight minutes after each push: most of what was sent shows in Stripe's sums by then, and the rest later.
        "billing.stripe.confirm": _entry("billing.stripe.confirm", crontab(minute="5-59/15"), expires_seconds=840),
        # What Stripe dropped after it had taken it: reported within minutes, known here long before a day of absence is
        # over. Between a push and a confirmation, which use Stripe's rate as well.
        "billing.stripe.errors": _entry("billing.stripe.errors", crontab(minute="16-59/30"), expires_seconds=1_700),
        # Redis, the log and Stripe against each other: hourly, at a minute when nothing else of billing's begins.
        "billing.reconcile.run": _entry("billing.reconcile.run", crontab(minute=41), expires_seconds=3_000),
    }


def _entry(task: str, schedule: crontab, *, expires_seconds: int) -> dict[str, Any]:
    return {"task": task, "schedule": schedule, "options": {"queue": QUEUE, "expires": expires_seconds}}
