"""Summaries of meter events: windows, and what counts in each.

Sources: alignment, grouping and limits are in the API reference; that only the most recently received event of an hour
or day counts on a pre-aggregated meter is in the guide to meters.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, Final

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.event_log import Counted
from billing.sinks.stripe.sandbox.pages import page
from billing.sinks.stripe.sandbox.params import PAGE, Param, Spec
from billing.sinks.stripe.sandbox.records import Meter
from billing.sinks.stripe.sandbox.resources import meters
from billing.sinks.stripe.sandbox.routing import Call, route

LIST: Final[Spec] = {
    **PAGE,
    "customer": Param(required=True),
    "start_time": Param(kind="integer", required=True),
    "end_time": Param(kind="integer", required=True),
    "value_grouping_window": Param(choices=("hour", "day")),
}
SECONDS: Final = {"minute": 60, "hour": 3_600, "day": 86_400}
WINDOWS_MAX: Final = 20_000
_SHUFFLING: Final = 2_654_435_761

Window = tuple[int, int]


def windows(start: int, end: int, grouping: str | None) -> list[Window]:
    """Return the windows of a listing, oldest first; refuse what is not aligned."""
    unit = grouping or "minute"
    for name, value in (("start_time", start), ("end_time", end)):
        if value % SECONDS[unit]:
            raise Refusal(400, f"Invalid {name}: must be aligned with {unit} boundaries", param=name)
    if end <= start:
        raise Refusal(400, "Invalid end_time: must be after start_time", param="end_time")
    if grouping is None:
        return [(start, end)]
    step = SECONDS[grouping]
    if (end - start) // step > WINDOWS_MAX:
        raise Refusal(400, f"Invalid end_time: at most {WINDOWS_MAX} windows at a time", param="end_time")
    return [(at, at + step) for at in range(start, end, step)]


def visible(events: Iterable[Counted], now: int, lag_seconds: int, spread_seconds: int) -> list[Counted]:
    """Return the events that summaries show yet: each after the lag and its own share of the spread, in any order."""
    return [
        event
        for event in events
        if event.received_at + lag_seconds + event.place * _SHUFFLING % (spread_seconds + 1) <= now
    ]


def aggregate(meter: Meter, events: Sequence[Counted]) -> Decimal:
    """Aggregate the events of one window, given in the order of their receipt."""
    if step := SECONDS.get(meter.details["event_time_window"] or ""):
        latest = {event.timestamp // step: event for event in events}  # a later one overwrites
        events = list(latest.values())
    formula = meters.formula(meter)
    if formula == "count":
        return Decimal(len(events))
    if formula == "last":
        return Decimal(max(events, key=lambda event: event.timestamp).value) if events else Decimal(0)
    return sum((Decimal(event.value) for event in events), Decimal(0))


def inside(events: Iterable[Counted], window: Window, *, inclusive: bool) -> list[Counted]:
    """Return the events of a window; whether one at exactly its end belongs to it is a knob."""
    start, end = window
    return [event for event in events if start <= event.timestamp < end or (inclusive and event.timestamp == end)]


def shape(meter: Meter, customer: str, window: Window, value: Decimal) -> dict[str, Any]:
    """Return the object that a caller sees. It does not name the customer; its value is a float, as Stripe's is."""
    start, end = window
    digest = hashlib.sha256(f"{meter.id}|{customer}|{start}|{end}".encode()).hexdigest()
    return {
        "id": f"mtrusg_{digest[:24]}",
        "object": "billing.meter_event_summary",
        "aggregated_value": float(value),
        "start_time": start,
        "end_time": end,
        "livemode": False,
        "meter": meter.id,
    }


def list_all(call: Call) -> dict[str, Any]:
    """`GET /v1/billing/meters/{id}/event_summaries`."""
    meter, knobs, customer = meters.found(call), call.knobs, call.params["customer"]
    if call.store.customer(customer) is None:
        raise errors.no_such("customer", customer, param="customer", status=400)
    start, end = call.params["start_time"], call.params["end_time"]
    made = []
    asked = windows(start, end, call.params.get("value_grouping_window"))
    received = call.store.events.counted(meter.id, customer, start, end, now=call.now)
    shown = visible(received, call.now, knobs.summary_lag_seconds, knobs.summary_lag_spread_seconds)
    for window in asked:
        its = inside(shown, window, inclusive=knobs.end_time_inclusive)
        if its or knobs.empty_summaries == "zero":
            made.append(shape(meter, customer, window, aggregate(meter, its)))
    if knobs.summaries_newest_first:
        made.reverse()
    return page(made, call.params, url=f"/v1/billing/meters/{meter.id}/event_summaries")


ROUTES: Final = (route("GET", "/v1/billing/meters/{id}/event_summaries", LIST, list_all),)
