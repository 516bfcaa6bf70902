"""A correction by a process of its own that kills itself: `killed_adjuster.py SETTINGS POINT RUN CREDITS KEY`.

It dies after everything is written and before the commit, or after the commit and before the bucket is told.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from billing import admin
from billing.admin import usage_adjustments
from billing.core.settings import Settings
from billing.fulfillment import adjustments


def main() -> None:
    """Correct, and die on the way."""
    given: dict[str, Any] = json.loads(sys.argv[1])
    settings = Settings(**{name: _hashable(value) for name, value in given.items()})
    place, name, does = {
        "before commit": (adjustments, "adjust", True),
        "after commit": (usage_adjustments, "apply_to", False),
    }[sys.argv[2]]
    step = getattr(place, name)

    def last(*args: Any, **options: Any) -> None:
        if does:
            step(*args, **options)
        os.kill(os.getpid(), signal.SIGKILL)

    setattr(place, name, last)
    admin.adjust_usage(settings, sys.argv[3], int(sys.argv[4]), reason="a test", key=sys.argv[5])


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


if __name__ == "__main__":
    main()
