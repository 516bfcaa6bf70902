"""What makes a row's task the same however often its replay is started. Pure.

The task id follows from the workload's digest, the instant at which it was first started and the line, the run id from
the client, the task id and that instant: a row has one run for ever, so that it is charged once (L3). A database that
begins anew shares neither with results that are still stored.
"""

from __future__ import annotations

import dataclasses
import uuid
from datetime import datetime
from typing import Any, Final

from billing.core import ids
from billing.core.clock import to_milliseconds
from billing.task.headers import AT
from billing.workload.rows import Row

_NAMESPACE: Final = uuid.UUID("5a1a5f7e-5c0e-5d3b-9d0a-62696c6c696e")
#: A run id's last bits, summed over runs: two sums that differ are of different runs.
FINGERPRINT_BITS: Final = 32


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Identity:
    """A workload: the digest of its file and options, and when it was first started, to the millisecond."""

    digest: str
    started_at: datetime

    @property
    def at_milliseconds(self) -> int:
        """The time bits of every run id of this workload, and of no other's."""
        return to_milliseconds(self.started_at)

    @property
    def headers(self) -> dict[str, Any]:
        """The headers of every row's message: the time is given and there is no nonce, so that none is minted."""
        return {AT: self.at_milliseconds}

    @property
    def run_ids(self) -> tuple[uuid.UUID, uuid.UUID]:
        """The bounds of the run ids of this workload, the second one exclusive."""
        return uuid.UUID(int=self.at_milliseconds << 80), uuid.UUID(int=(self.at_milliseconds + 1) << 80)

    def task_id(self, line: int) -> str:
        """Return the task id of the row on a line."""
        return str(uuid.uuid5(_NAMESPACE, f"{self.digest}:{self.at_milliseconds}:{line}"))

    def run_id(self, row: Row, task_id: str) -> uuid.UUID:
        """Return the run id that every delivery of a row's task has."""
        return ids.run_id(row.client_id, task_id, nesting=0, nonce="", at_milliseconds=self.at_milliseconds)


def fingerprint(run_id: uuid.UUID) -> int:
    """Return the last bits of a run id, which are a hash of what identifies it."""
    return run_id.int & (1 << FINGERPRINT_BITS) - 1
