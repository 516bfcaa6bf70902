"""Seconds since the Unix epoch as v2 writes them: RFC 3339, in UTC. Pure."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Final

_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)", re.ASCII)


def written(seconds: int) -> str:
    """Return a second with milliseconds, as Stripe does."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def read(text: str) -> int | None:
    """Return the second that an instant lies in, None when it is none."""
    if not _INSTANT.fullmatch(text):
        return None
    try:
        return int(datetime.fromisoformat(text).timestamp())
    except ValueError:
        return None
