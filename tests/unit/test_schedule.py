"""What beat runs: crontabs, in billing's own queue, each expiring before its next turn."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import celery
import pytest
from celery.schedules import crontab

import billing
from billing.integration.schedule import build_schedule

_OURS = build_schedule()


@pytest.mark.parametrize("name", _OURS)
def test_every_entry_is_a_crontab_in_the_maintenance_queue(name: str) -> None:
    """Given an entry, then an interval's lost countdown cannot delay it, and it waits in no client's queue (L10)."""
    entry = _OURS[name]

    assert name.startswith("billing.")
    assert isinstance(entry["schedule"], crontab)
    assert entry["options"]["queue"] == "billing.maintenance"


@pytest.mark.parametrize("name", _OURS)
def test_every_entry_expires_before_its_next_turn(name: str) -> None:
    """Given nobody who serves the queue for a day, then at most one of each entry waits there (L9)."""
    schedule: Any = _OURS[name]["schedule"]
    app = celery.Celery("schedule", set_as_current=False)
    app.conf.update(timezone="UTC")
    now = datetime(2026, 3, 1, tzinfo=UTC)
    timed = crontab(**_fields(schedule), app=app, nowfun=lambda: now)
    due, periods = now, []
    for _ in range(5):
        delta = timed.remaining_delta(due)
        following = delta[0] + delta[1]
        periods.append(following - due)
        due = following

    assert _OURS[name]["options"]["expires"] < min(periods[1:]).total_seconds()
    assert min(periods[1:]) >= timedelta(minutes=1)


def test_every_entry_is_a_task_that_setup_registers() -> None:
    """Given an app with billing, then beat sends it only tasks that it knows."""
    app = billing.setup(celery.Celery("schedule", broker="memory://", set_as_current=False))
    app.finalize()

    assert {entry["task"] for entry in _OURS.values()} <= set(app.tasks)
    app.close()


def test_the_users_own_entries_are_kept() -> None:
    """Given a schedule of the user's own, then its entries stand beside billing's, and the original is unchanged."""
    own = {"reports": {"task": "reports.make", "schedule": 60.0}}
    configuration = {"beat_schedule": own}

    built = build_schedule(configuration)

    assert built == {**own, **_OURS}
    assert configuration == {"beat_schedule": {"reports": {"task": "reports.make", "schedule": 60.0}}}
    assert build_schedule({}) == build_schedule(None) == _OURS


def test_the_schedule_of_an_app_can_be_given_to_it_again() -> None:
    """Given an app's own configuration, when the schedule is built from it twice, then nothing changes any more."""
    app = celery.Celery("schedule", set_as_current=False)
    app.conf.beat_schedule = {"reports": {"task": "reports.make", "schedule": 60.0}}

    app.conf.beat_schedule = build_schedule(app.conf)
    again = build_schedule(app.conf)

    assert again == app.conf.beat_schedule
    assert set(again) == {"reports", *_OURS}


def _fields(schedule: Any) -> dict[str, Any]:
    return {
        "minute": schedule._orig_minute,
        "hour": schedule._orig_hour,
        "day_of_week": schedule._orig_day_of_week,
        "day_of_month": schedule._orig_day_of_month,
        "month_of_year": schedule._orig_month_of_year,
    }
