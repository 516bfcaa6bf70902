"""What beat runs in this fleet, and why: billing's own entries, each with its reason in `build_schedule`."""

from billing.integration.schedule import build_schedule

BEAT_SCHEDULE = build_schedule()
