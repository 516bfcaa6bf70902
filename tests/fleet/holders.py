"""A process without Celery that is in many blocks of `billing.reserve` at once. Run as `-m`, with a file of orders.

It enters all of them, notes that, and leaves them as the test opens their gates; its renewal thread keeps the holds
meanwhile, and asserts them where Redis lost them.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import billing
from tests.fleet.tasks import note, wait_for_gate


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Order:
    """A block: what it may use at most, what it does use, and whether it ends well; left when its gate is open."""

    gate: str
    key: str
    client_id: str
    sku: str
    most: int
    used: int
    succeeds: bool


def write_orders(path: Path, orders: Sequence[Order]) -> None:
    """Write the orders of one process, those of one gate together, the gates in the order in which they open."""
    path.write_text(json.dumps([dataclasses.asdict(order) for order in orders]))


def main(path: Path) -> None:
    """Enter all blocks, then leave them, gate by gate."""
    directory = Path(os.environ["FLEET_DIRECTORY"])
    orders = [Order(**order) for order in json.loads(path.read_text())]
    entered = [
        (order, billing.reserve(order.client_id, order.sku, order.most, key=order.key).__enter__()) for order in orders
    ]
    note(directory, "blocks.held", str(len(entered)))
    for gate, members in itertools.groupby(entered, key=lambda pair: pair[0].gate):
        wait_for_gate(directory, gate)
        for order, block in members:
            if order.succeeds:
                block.record(order.used)
                block.__exit__(None, None, None)
            else:
                block.__exit__(ValueError, ValueError(order.key), None)
            note(directory, f"{gate}.left", f"{order.key} {block.outcome.value}")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
