"""The tasks by which beat is seen, and by which it has the laws checked: bounded, harmless twice or late."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import celery

from billing.task.attachment import attachment_of


def watching_tasks(app: celery.Celery) -> tuple[tuple[str, Callable[[], Any]], ...]:
    """Return the tasks by name."""

    def note_beat() -> None:
        """Note that beat's message came: it lives."""
        from billing.connections import postgres  # noqa: PLC0415 - not for task workers' memory
        from billing.observability.liveness import seen  # noqa: PLC0415 - the same

        runtime = attachment_of(app).runtime
        with postgres.reaching(runtime.settings), runtime.engine.begin() as connection:
            seen.note(connection, seen.BEAT, seen.BEAT)

    def check_laws() -> dict[str, int]:
        """Check the next slice of every law, and tell which do not hold any more."""
        from billing.observability.laws import check  # noqa: PLC0415 - not for task workers' memory

        return check.check_laws(attachment_of(app).runtime)

    return (("billing.beat.seen", note_beat), ("billing.laws.check", check_laws))
