"""`billing.workload.row`: the billable task that stands for one recorded row.

The recorded work itself is not repeated, only its billing: the body verifies the row's own checksum and returns it.
Client, SKU and quantity are the row's own; its run id follows from the file and the line (see `feed.py`).
"""

from __future__ import annotations

import hashlib
from typing import Any, Final

from billing.core.errors import InvalidValue
from billing.task.billable import BillableTask
from billing.workload.rows import Row

ROW_TASK: Final = "billing.workload.row"


class RowTask(BillableTask):
    """Goes to the app's default task queue, whatever its routes say of `billing.*`, and stores its result."""

    abstract = True
    ignore_result = False

    @property
    def queue(self) -> str:
        """The queue that ordinary tasks wait in."""
        return str(self.app.conf.task_default_queue)


def options() -> dict[str, Any]:
    """Return how the task is registered."""
    return {
        "name": ROW_TASK,
        "base": RowTask,
        "sku": lambda client_id, sku, quantity, line, at, checksum: sku,  # noqa: ARG005 - called with all arguments
        "quantity": lambda client_id, sku, quantity, line, at, checksum: quantity,  # noqa: ARG005 - the same
        "shared": False,
    }


def verify_row(client_id: str, sku: str, quantity: int, line: int, at: str | None, checksum: str) -> str:
    """Check that a row has come as it was sent, and return its checksum."""
    found = checksum_of(client_id, sku, quantity, line, at)
    if found != checksum:
        raise InvalidValue("checksum", checksum, f"must be {found}: row {line} did not come as it was sent")
    return found


def arguments(row: Row) -> tuple[str, str, int, int, str | None, str]:
    """Return the arguments of a row's task."""
    at = None if row.at is None else row.at.isoformat()
    fields = (row.client_id, row.sku, row.quantity, row.line, at)
    return (*fields, checksum_of(*fields))


def checksum_of(client_id: str, sku: str, quantity: int, line: int, at: str | None) -> str:
    """Return the checksum of a row's fields."""
    digest = hashlib.blake2b(digest_size=8)
    for field in (client_id, sku, str(quantity), str(line), at or ""):
        encoded = field.encode()
        digest.update(len(encoded).to_bytes(4, "big"))
        digest.update(encoded)
    return digest.hexdigest()
