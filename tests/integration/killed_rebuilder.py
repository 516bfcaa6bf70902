"""A rebuilder in a process of its own that kills itself at a named point: `killed_rebuilder.py SETTINGS POINT`."""

from __future__ import annotations

import functools
import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any
from unittest.mock import patch

from billing.core.settings import Settings
from billing.credits import verification
from billing.credits.buckets import Buckets
from billing.task.runtime import Runtime
from tests.integration.recovering import PromptRebuilder

#: Where it dies: after which call, and whether that call is made.
POINTS = {"closed": ("close", True), "between two slices": ("_rebuild_slice", True), "committed": ("verify", False)}


def dying(step: Callable[..., Any], *, after: bool) -> Callable[..., Any]:
    """Return a step whose process ends as the kernel would end it."""

    @functools.wraps(step)
    def last(*args: Any, **options: Any) -> None:
        if after:
            step(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    return last


def main() -> None:
    """Rebuild, and die on the way."""
    settings = Settings(**json.loads(sys.argv[1]))
    # Each bucket is a slice of its own, so that it may die between two.
    patch.object(verification, "_SLICE", 1).start()
    name, after = POINTS[sys.argv[2]]
    setattr(Buckets, name, dying(getattr(Buckets, name), after=after))
    PromptRebuilder(Runtime(lambda: settings)).step()


if __name__ == "__main__":
    main()
