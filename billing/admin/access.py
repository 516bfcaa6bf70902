"""The runtime that an administrative call works with: given, or made from the environment once per process."""

from __future__ import annotations

import functools

from billing.core.settings import Settings
from billing.task.runtime import Runtime


@functools.lru_cache(maxsize=8)
def runtime_for(settings: Settings) -> Runtime:
    """Return the runtime of some settings; the same settings share their connections."""
    return Runtime(lambda: settings)


def close(settings: Settings) -> None:
    """Close the connections that administrative calls with these settings have made."""
    runtime_for(settings).close()
