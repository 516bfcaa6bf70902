"""The protocol's second part: what a sink says after it had answered a call. Pure.

It may report that it dropped what it took, naming some of the calls; and its sums may show two generations of one
increment, whose newer one is then taken back, once. On doubt a person is told (L8).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import Final

from billing.sinks.sink import Answer, ErrorReport, Reply
from billing.sinks.sync.increment import Attempt, Increment, State
from billing.sinks.sync.looks import counted_twice
from billing.sinks.sync.protocol import AHEAD_MAX, LEASE, NOT_EXECUTED, RESEND_WITHIN, reported

#: How far from a call the window of a report may lie that is about it: what was taken is looked at some time later,
#: and clocks differ.
REPORT_MARGIN: Final = timedelta(minutes=10)


def leaves_open(report: ErrorReport, increments: Collection[int]) -> bool:
    """Whether a report is about more calls than those of these increments, which it names."""
    return report.count > len(increments)


def is_near(attempt: Attempt, report: ErrorReport) -> bool:
    """Whether a call lies in the window of a report, or so near that it may be about it."""
    ended = attempt.finished_at or attempt.started_at + LEASE
    return attempt.started_at - REPORT_MARGIN <= report.window_end and report.window_start <= ended + REPORT_MARGIN


def doubts(report: ErrorReport, named: Collection[int], increment: Increment, attempts: Collection[Attempt]) -> bool:
    """Whether a report, which names calls of some increments, may be about a call of this one without naming it.

    A report of no known meter may be about any.
    """
    if report.event_name not in ("", increment.event_name) or not leaves_open(report, named):
        return False
    return any(is_near(attempt, report) for attempt in attempts)


def named(increment: Increment, report: ErrorReport) -> Increment | None:
    """Return it after a report that names calls of an increment; None when it says nothing of this generation."""
    of_latest = sorted(report.samples, key=lambda key: key != increment.idempotency_key)
    found = (reported(increment, report.code, key=key) for key in of_latest)
    return next((changed for changed in found if changed is not None), None)


def withdrawing(increment: Increment, shown: int, now: datetime) -> Increment | None:
    """Return it as one that a call is made for to take its newest generation back, or None when none may be.

    A sink takes back what it received within a day. An increment is withdrawn once; then its sum is to show its units.
    """
    first = increment.first_attempt_at
    if increment.state is not State.QUARANTINED or not counted_twice(increment, shown):
        return None
    if increment.withdrawn_at is not None or first is None or not now - RESEND_WITHIN < first <= now + AHEAD_MAX:
        return None
    return dataclasses.replace(increment, attempts=increment.attempts + 1, last_attempt_at=now)


def withdrawn(increment: Increment, attempt: int, reply: Reply, now: datetime) -> Increment | None:
    """Return it after the answer to a call that was to take it back; None when it is to be asked again."""
    if increment.state is not State.QUARANTINED or increment.attempts != attempt:
        return None
    if reply.answer in (*NOT_EXECUTED, Answer.UNKNOWN):
        return None
    done = "is withdrawn" if is_taken_back(reply) else f"is not withdrawn: {reply.reason}"
    reason = f"it is counted twice at the sink; its generation {increment.generation} {done}"
    return dataclasses.replace(increment, withdrawn_at=now, reason=reason)


def is_taken_back(reply: Reply) -> bool:
    """Whether an answer says that the sink takes back what it was asked to."""
    return reply.answer in (Answer.TAKEN, Answer.DUPLICATE)
