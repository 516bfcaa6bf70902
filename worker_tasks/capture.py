"""`capture_page`: fetches a page, keeps it, and is charged for what was kept.

Priced per page and per started 100 KiB. The most a page can be is held before the fetch; a page that cannot be
fetched whole costs nothing.
"""

from __future__ import annotations

from typing import Final

from billing import BillableTask
from worker_tasks import pages, store
from worker_tasks.app import app
from worker_tasks.price_list import PAGE_CAPTURE, PAGE_TRANSFER

TRANSFER_UNIT_BYTES: Final = 102_400


def transfer_units(size_bytes: int) -> int:
    """Return the started units of 100 KiB in `size_bytes`."""
    return -(-size_bytes // TRANSFER_UNIT_BYTES)


@app.task(
    bind=True,
    base=BillableTask,
    sku=PAGE_CAPTURE,
    reserve={PAGE_TRANSFER: transfer_units(pages.PAGE_BYTES_MAX)},
    # The transfer has a deadline of its own; this bounds what has none, as a name server that does not answer.
    soft_time_limit=45,
    time_limit=60,
)
def capture_page(self: BillableTask, client_id: str, url: str) -> dict[str, str | int]:  # noqa: ARG001 - who pays
    """Fetch `url` and keep it; return the file's path, its bytes and its SHA-256."""
    content = pages.fetch(url)
    path, digest = store.keep(content)
    self.usage.record(sku=PAGE_TRANSFER, quantity=transfer_units(len(content)))
    return {"path": str(path), "bytes": len(content), "sha256": digest}
