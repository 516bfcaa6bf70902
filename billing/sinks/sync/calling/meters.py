"""Looks at meters before they are sent to or read from: a wrong one stops its own increments only (L10)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

from billing.core.errors import BillingError, Unreachable
from billing.sinks.sink import MeterSink
from billing.sinks.sync.increment import Increment
from billing.sinks.sync.log import Open


def check_meters(
    sink: MeterSink,
    find: Callable[[Open], list[Increment]],
    search: Open,
    found: Sequence[Increment],
    *,
    turn: Callable[[], bool],
) -> tuple[list[Increment], dict[str, BillingError]]:
    """Return increments of meters that are as they should be, with why others are not: each meter is looked at once.

    Increments of a refused meter make room for others: what is `found` is searched again without it. Each round
    refuses one meter at least, so there are as many as meters (L9). `turn`: waits for a call's turn; False ends it all.
    Raises `Unreachable` when nobody answers.
    """
    checked: set[str] = set()
    refused: dict[str, BillingError] = {}
    kept = list(found)
    while True:
        fresh = sorted({increment.event_name for increment in kept} - checked)
        if not fresh:
            return kept, refused
        for event_name in fresh:
            if not turn():
                return [], refused
            checked.add(event_name)
            try:
                sink.check(event_name)
            except Unreachable:
                raise
            except BillingError as error:
                refused[event_name] = error
        if any(event_name in refused for event_name in fresh):
            kept = find(dataclasses.replace(search, without=(*search.without, *sorted(refused))))
