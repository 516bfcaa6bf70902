"""Judges who was seen: is beat at work, and has every usage queue a consumer that lives? Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from billing.observability.doctor.finding import Finding, fail, ok, warn
from billing.observability.liveness.seen import BEAT, CONSUMER, LastSeen

PART: Final = "liveness"
#: A consumer notes itself every 10 s, unless PostgreSQL is away: a minute is six notes that are missing.
SILENT_SECONDS: Final = 60.0
#: A killed consumer whose queues another one serves is news for so long: then it is known that it does not come back.
NEWS_SECONDS: Final = 3_600.0
#: Beat's message of each minute was missed five times.
BEAT_LATE_SECONDS: Final = 300.0
#: A solo worker runs one task of beat's at a time, and `billing.reconcile.run` may take 20 minutes: past 30 it is beat.
BEAT_SILENT_SECONDS: Final = 1_800.0

_START: Final = "start a worker with --fulfillment; the log of the last one says why it ended"


def judge(rows: Sequence[LastSeen], usage_queues: int, *, has_charged: bool) -> list[Finding]:
    """Return what is to be said of them. `has_charged`: the log has rows, so that a consumer was there before."""
    return [*_of_beat([row for row in rows if row.process == BEAT]), *_of_consumers(rows, usage_queues, has_charged)]


def unserved(rows: Sequence[LastSeen], usage_queues: int) -> list[int]:
    """Return the usage queues that no living consumer says it serves."""
    served: set[int] = set()
    for row in _living(rows):
        served |= {int(number) for number in str(row.details.get("served", "")).split(",") if number.isdigit()}
    return [number for number in range(usage_queues) if number not in served]


def is_beat_silent(rows: Sequence[LastSeen]) -> bool:
    """Return whether beat was there, and is not any more."""
    beats = [row.age_seconds for row in rows if row.process == BEAT]
    return bool(beats) and min(beats) > BEAT_SILENT_SECONDS


def told(seconds: float) -> str:
    """Return an age as a person says it."""
    if seconds < 2 * 60:
        return f"{seconds:.0f} s"
    minutes = int(seconds // 60)
    return f"{minutes} min" if minutes < 2 * 60 else f"{minutes // 60} h {minutes % 60} min"


def _of_beat(beats: Sequence[LastSeen]) -> list[Finding]:
    if not beats:
        advice = (
            "start celery beat with billing's schedule (build_schedule), and a worker that serves billing.maintenance"
        )
        return [warn(PART, "beat was never seen", advice)]
    age = min(row.age_seconds for row in beats)
    seen = f"beat was seen {told(age)} ago"
    if age <= BEAT_LATE_SECONDS:
        return [ok(PART, seen)]
    advice = "see whether beat runs, and whether a worker takes billing.maintenance (a solo one is busy with one task)"
    return [fail(PART, seen, advice) if age > BEAT_SILENT_SECONDS else warn(PART, seen, advice)]


def _of_consumers(rows: Sequence[LastSeen], usage_queues: int, has_charged: bool) -> list[Finding]:  # noqa: FBT001 - private
    consumers = [row for row in rows if row.process == CONSUMER]
    living, lacking = _living(rows), unserved(rows, usage_queues)
    found = []
    for row in living:
        seen = f"consumer {row.name} was seen {told(row.age_seconds)} ago"
        if row.details.get("queues"):
            found.append(ok(PART, f"{seen}, {row.details.get('in_hand', 0)} events in hand"))
        else:
            advice = "its log says which server keeps it from consuming"
            found.append(warn(PART, f"{seen}, and is subscribed to nothing", advice))
    silent = [row for row in consumers if row not in living and (lacking or row.age_seconds <= NEWS_SECONDS)]
    for row in silent[:_NAMED_MAX]:
        seen = f"consumer {row.name} is silent: it was seen {told(row.age_seconds)} ago"
        found.append((fail if lacking else warn)(PART, seen, "see whether it runs; its log says more"))
    if not living:
        seen = "no consumer is seen: nothing is written to the usage history"
        found.append((fail if has_charged or consumers else warn)(PART, seen, _START))
    elif lacking:
        listed = ", ".join(map(str, lacking[:_NAMED_MAX]))
        found.append(fail(PART, f"usage queues that no living consumer serves: {listed}", _START))
    return found


#: Consumers or queues that are named (L9).
_NAMED_MAX: Final = 10


def _living(rows: Sequence[LastSeen]) -> list[LastSeen]:
    return [row for row in rows if row.process == CONSUMER and row.age_seconds <= SILENT_SECONDS]
