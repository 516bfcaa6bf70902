"""What a worker is started with whose processes die, or find Redis away, at chosen points around a charge's count.

A file orders it: `kill.<point>` one death, `away` for as long as it is there.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from billing.core.errors import Unreachable
from billing.credits.buckets import Buckets
from billing.observability.metrics.counts import Counts
from billing.task.lifecycle import Lifecycle
from tests.fleet.tasks import dying
from tests.fleet.worker import app

__all__ = ["app"]

_DIRECTORY = Path(os.environ["FLEET_DIRECTORY"])
_SETTLE = Buckets.settle


def _settle(buckets: Buckets, *arguments: Any, **named: Any) -> Any:
    if (_DIRECTORY / "away").exists():
        raise Unreachable("away")
    return _SETTLE(buckets, *arguments, **named)


for owner, name, replacement in (
    (Buckets, "settle", _settle),
    (Lifecycle, "_settle", dying(Lifecycle._settle, _DIRECTORY / "kill.before_settle")),
    (Counts, "charged", dying(Counts.charged, _DIRECTORY / "kill.before_count")),
    (Lifecycle, "publish", dying(Lifecycle.publish, _DIRECTORY / "kill.before_publish")),
):
    setattr(owner, name, replacement)
