"""A process that calls a task itself instead of sending it, and notes what it sees. Run as `-m`."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from billing.task.attachment import attachment_of
from tests.endings.books import describe
from tests.endings.worker import app, directory
from tests.fleet.tasks import note


def main(what: str, client_id: str) -> None:
    """Call, note, and pay what is owed."""
    known: dict[str, Callable[[str], str]] = {
        "eager": lambda client: _applied("one", client),
        "eager_raises": lambda client: _applied("fails", client),
        "eager_propagates": lambda client: _applied("fails", client, throw=True),
        "direct": lambda client: app.tasks["one"](client) and "returns",
        "map": lambda client: str(app.tasks["one"].map([client])),
        "starmap": lambda client: str(app.tasks["one"].starmap([(client,)])),
        "chunks": lambda client: str(app.tasks["one"].chunks([(client,)], 1)),
    }
    try:
        seen = known[what](client_id)
    except Exception as error:  # noqa: BLE001 - it is what the caller sees
        seen = f"raises {type(error).__name__}"
    note(directory, f"{client_id}.saw", seen)
    attachment = attachment_of(app)
    attachment.lifecycle.close()
    attachment.runtime.close()


def _applied(name: str, client_id: str, **options: Any) -> str:
    result = app.tasks[name].apply((client_id,), **options)
    return describe(result.state, result.result)


if __name__ == "__main__":
    main(*sys.argv[1:])
