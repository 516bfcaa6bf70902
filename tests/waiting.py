"""Wait for a condition, never for a time: tests do not sleep.

A limit only bounds a failure: it is far above what a slow and busy machine needs, and costs nothing when all is well.
Who expects failures, as the mutants do, sets a lower one (`TESTS_LIMIT_SECONDS`).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

LIMIT_SECONDS = float(os.environ.get("TESTS_LIMIT_SECONDS", "120"))


def wait_until(condition: Callable[[], object], what: str, *, timeout_seconds: float = LIMIT_SECONDS) -> None:
    """Return as soon as `condition` holds; fail with `what` when it does not in time."""
    deadline = time.monotonic() + timeout_seconds
    while not condition():
        if time.monotonic() > deadline:
            message = f"not within {timeout_seconds:g} s: {what}"
            raise AssertionError(message)
        time.sleep(0.02)
