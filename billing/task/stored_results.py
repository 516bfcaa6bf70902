"""What a result backend's record of a task says, whichever backend wrote it. Pure."""

from __future__ import annotations

from datetime import UTC, datetime


def stored_at(date_done: object) -> datetime | None:
    """Return when a result was stored: backends give text or a time, some without a zone, which is UTC then."""
    if isinstance(date_done, str):
        try:
            date_done = datetime.fromisoformat(date_done)
        except ValueError:
            return None
    if not isinstance(date_done, datetime):
        return None
    return date_done.replace(tzinfo=UTC) if date_done.tzinfo is None else date_done.astimezone(UTC)
