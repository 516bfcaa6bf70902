"""What a worker of the storm is started with: the fleet's tasks, and a witness of its own for every success.

The witness is Celery's signal `task_success`, written before the message is acked: a later delivery of the same run may
put another result in the place of the first, and who judges the books must know that there was one. A second one is of
tasks whose result could not be stored: Celery itself ends them then, as a failure that nobody may hear of. A third one
is of every delivery that begins, before billing holds anything for it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

from celery import signals

from tests.chaos.storm.witness import BEGUN, SUCCEEDED, UNANSWERED
from tests.fleet.tasks import note
from tests.fleet.worker import app

__all__ = ["app"]

_DIRECTORY: Final = Path(os.environ["FLEET_DIRECTORY"])


@signals.task_prerun.connect(weak=False)
def _witness_begin(task_id: str, **_: object) -> None:
    note(_DIRECTORY, f"{BEGUN}.{os.getpid()}", f"{task_id}:{time.time_ns() // 1_000_000}")


@signals.task_success.connect(weak=False)
def _witness(sender: Any, **_: object) -> None:
    note(_DIRECTORY, f"{SUCCEEDED}.{os.getpid()}", str(sender.request.id))


@signals.task_internal_error.connect(weak=False)
def _witness_error(task_id: str, **_: object) -> None:
    note(_DIRECTORY, f"{UNANSWERED}.{os.getpid()}", task_id)
