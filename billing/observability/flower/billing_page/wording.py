"""How a page says numbers, ages and times to people. Pure."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Final

from billing.core.printable import printable

#: Units of an age, the largest that fits counts.
_UNITS: Final = ((86_400, "d"), (3_600, "h"), (60, "min"))


def age(seconds: float) -> str:
    """Return how long something is, in its largest unit: `59 s`, `12 min`, `3 h`, `2 d`."""
    for size, unit in _UNITS:
        if seconds >= size:
            return f"{int(seconds // size):,} {unit}"
    return f"{max(0, int(seconds))} s"


def ago(instant: datetime | None, now: datetime) -> str:
    """Return how long ago something was; ahead of now counts as now, since clocks differ."""
    return "never" if instant is None else f"{age((now - instant).total_seconds())} ago"


def until(instant: datetime | None, now: datetime) -> str:
    """Return how far ahead something is."""
    if instant is None:
        return "never"
    seconds = (instant - now).total_seconds()
    return f"in {age(seconds)}" if seconds > 0 else f"{age(-seconds)} ago"


def lease(seconds: float) -> str:
    """Return how long a lease still runs, or since when it is over."""
    return f"{age(seconds)} left" if seconds >= 0 else f"over since {age(-seconds)}"


def moment(instant: datetime) -> str:
    """Return an instant to the second, in UTC."""
    return instant.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def iso(instant: datetime) -> str:
    """Return an instant as a machine reads it."""
    return instant.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def word(text: str) -> str:
    """Return an argument as a shell takes it: what is shown may be copied into a terminal."""
    return shlex.quote(text)


def detail(value: float | str) -> str:
    """Return something that a process noted of itself."""
    if isinstance(value, str):
        return printable(value)
    return f"{value:,}" if isinstance(value, int) else f"{value:,.1f}"
