"""What beat runs, when, and why: the schedule itself, and the comments above its entries."""

from __future__ import annotations

import inspect
import re
from typing import Final

from celery.schedules import crontab

from billing.integration.schedule import QUEUE, build_schedule
from docs.made.markdown import code, table

_ENTRY: Final = re.compile(r'((?:^ +# .*\n)+)^ +"([a-z_.]+)": _entry\(', re.MULTILINE)


def entries() -> str:
    """Return a table of billing's entries. Raises `KeyError` for one without a reason."""
    reasons = {
        name: " ".join(line.strip(" #") for line in said.splitlines())
        for said, name in _ENTRY.findall(inspect.getsource(build_schedule))
    }
    rows = (
        (code(name), code(_when(entry["schedule"])), f"{entry['options']['expires']:,} s", reasons[name])
        for name, entry in build_schedule().items()
    )
    head = f"All go to the queue `{QUEUE}`. When: minute, hour, day of month, month, day of week, as in a crontab."
    return head + "\n\n" + table(("task", "when", "expires after", "why"), rows)


def _when(schedule: crontab) -> str:
    return re.sub(r"<crontab: (.*) \(.*", r"\1", repr(schedule))
