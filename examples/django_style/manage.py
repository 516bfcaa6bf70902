"""What a view or a management command would do: sign a client up, order a report, wait for it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from reports.tasks import report
from shop import celery_app

from billing import admin
from billing.integration.configuration import read_settings


def signup(client_id: str) -> str:
    """Add a client with 200 credits, once, however often the form is sent."""
    settings = read_settings(celery_app)
    admin.add_client(settings, client_id)
    admin.grant(settings, client_id, 200, key="welcome")
    return f"{client_id} is welcome"


def order(client_id: str, path: str) -> str:
    """Report on a file."""
    result = report.delay(client_id, Path(path).read_text("utf-8"))
    return str(result.get(timeout=120, propagate=False))


COMMANDS: dict[str, Callable[..., str]] = {"signup": signup, "order": order}

if __name__ == "__main__":
    print(COMMANDS[sys.argv[1]](*sys.argv[2:]))
