"""What Stripe tells later of events that it answered with 200 and dropped: a report per meter and window. Pure.

Source: the SDK's types of `v1.billing.meter.error_report_triggered` and `…no_meter_found`, and the guide to usage. The
errors in a report are samples: a count may exceed them. A sample names the call by its idempotency key, nothing else.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable, Sequence
from typing import Any, Final

from billing.sinks.stripe.sandbox import times
from billing.sinks.stripe.sandbox.records import Event

WINDOW_SECONDS: Final = 10
REPORTED: Final = "v1.billing.meter.error_report_triggered"
NO_METER: Final = "v1.billing.meter.no_meter_found"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
    """The dropped events of one meter ("" when there was none) that were validated in [start, end)."""

    meter: str
    start: int
    created: int
    events: tuple[Event, ...]

    @property
    def type(self) -> str:
        """The type of the event that tells it."""
        return REPORTED if self.meter else NO_METER

    @property
    def id(self) -> str:
        """An id of Stripe's form: always the same for the same report."""
        digest = hashlib.sha256(f"{self.meter}|{self.start}".encode()).hexdigest()
        return f"evt_test_{digest[:40]}"


def reports(events: Iterable[Event], *, delay_seconds: int) -> list[Report]:
    """Return the reports of dropped events, newest first; each is there `delay_seconds` after its window."""
    windows: dict[tuple[int, str], list[Event]] = {}
    for event in events:
        start = event.received_at // WINDOW_SECONDS * WINDOW_SECONDS
        meter = "" if event.dropped == "no_meter" else event.meter
        windows.setdefault((start, meter), []).append(event)
    return [
        Report(
            meter=meter,
            start=start,
            created=start + WINDOW_SECONDS + delay_seconds,
            events=tuple(windows[start, meter]),
        )
        for start, meter in sorted(windows, reverse=True)
    ]


def shape(report: Report, *, samples_max: int, with_data: bool) -> dict[str, Any]:
    """Return the thin event; its data only where they are asked for."""
    seen: dict[str, Any] = {
        "id": report.id,
        "object": "v2.core.event",
        "changes": None,
        "context": None,
        "created": times.written(report.created),
        "livemode": False,
        "reason": None,
        "snapshot_event": None,
        "type": report.type,
    }
    if report.meter:
        url = f"/v1/billing/meters/{report.meter}"
        seen["related_object"] = {"id": report.meter, "type": "billing.meter", "url": url}
    if with_data:
        seen["data"] = _data(report, samples_max)
    return seen


def _data(report: Report, samples_max: int) -> dict[str, Any]:
    by_code: dict[str, list[Event]] = {}
    for event in report.events:
        by_code.setdefault(event.dropped or "", []).append(event)
    types = [
        {"code": code, "error_count": len(events), "sample_errors": _samples(events[:samples_max])}
        for code, events in by_code.items()
    ]
    count = len(report.events)
    return {
        "developer_message_summary": f"There {'is 1 invalid event' if count == 1 else f'are {count} invalid events'}",
        "reason": {"error_count": count, "error_types": types},
        "validation_end": times.written(report.start + WINDOW_SECONDS),
        "validation_start": times.written(report.start),
    }


def _samples(events: Sequence[Event]) -> list[dict[str, Any]]:
    return [
        {"error_message": f"{event.dropped}: {event.event_name}", "request": {"identifier": event.key or ""}}
        for event in events
    ]
