"""Where usage logs write to, as the suite sees it: a second implementation of `UsageLog` brings a `Store` of its own.

It is added to `STORES` in the conftest beside; then every test of this folder runs on it.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from billing.events.usage_event import UsageEvent
from billing.fulfillment.log import UsageLog

HOUR: int = 3_600_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Row:
    """A line of a run as it is stored. Times are milliseconds; `grants` is who paid what."""

    run_id: uuid.UUID
    line: int
    settlement_id: str
    client_id: str
    correlation_id: str
    root_id: str
    task: str
    attempt: int
    sku: str
    quantity: int
    credits: int
    grants: tuple[tuple[int, int], ...]
    epoch: int
    price_version: int
    late: bool
    mode: str | None
    submitted_at: int | None
    occurred_at: int


class Letter(NamedTuple):
    """What was refused: its bytes, why, and the queue that it came from."""

    body: bytes
    reason: str
    queue: str


#: By client, SKU and hour (ms): credits and quantity.
Rollups = dict[tuple[str, str, int], tuple[int, int]]
#: By client and grant: credits.
Spent = dict[tuple[str, int], int]


class Store(Protocol):
    """An empty store, for one test."""

    def log(self) -> UsageLog:
        """Make a log with a connection of its own; the store closes it in the end."""
        ...

    def log_without_server(self) -> UsageLog:
        """Make a log whose server does not answer, at an address that holds the password `secret`."""
        ...

    def add_clients(self, *client_ids: str) -> None:
        """Have the store know these clients, at epoch 1."""
        ...

    def rows(self) -> list[Row]:
        """Return the history in the order of its keys."""
        ...

    def rollups(self) -> Rollups:
        """Return the derived sums by client, SKU and hour, as they are stored."""
        ...

    def spent(self) -> Spent:
        """Return the derived sums by grant, as they are stored."""
        ...

    def letters(self) -> list[Letter]:
        """Return the dead letters in the order of their bytes."""
        ...

    def markers(self) -> list[tuple[uuid.UUID, int]]:
        """Return the committed markers: token and shard."""
        ...

    def cut(self) -> None:
        """End every connection of its logs, as a server does that restarts."""
        ...

    def make_unready(self) -> None:
        """Take away what a write needs, so that no message is to blame; `make_ready` puts it back."""
        ...

    def make_ready(self) -> None:
        """Undo `make_unready`."""
        ...

    def refused(self) -> Mapping[str, dict[str, object]]:
        """Return what makes an event unwritable here and nowhere earlier: names and changed fields."""
        ...

    def close(self) -> None:
        """Close every log that was made."""
        ...


def rows_of(event: UsageEvent) -> list[Row]:
    """Return the rows that an event is to become."""
    return [
        Row(
            run_id=event.run_id,
            line=number,
            settlement_id=event.settlement_id,
            client_id=event.client_id,
            correlation_id=event.correlation_id,
            root_id=event.root_id,
            task=event.task,
            attempt=event.attempt,
            sku=line.sku,
            quantity=line.quantity,
            credits=line.credits,
            grants=tuple((share.grant, share.credits) for share in line.grants),
            epoch=event.epoch,
            price_version=event.price_version,
            late=event.late,
            mode=event.mode,
            submitted_at=event.submitted_at,
            occurred_at=event.occurred_at,
        )
        for number, line in enumerate(event.lines)
    ]


def assert_sums_exact(store: Store) -> None:
    """Check that both derived sums are those of the stored history, and hold nothing else."""
    rollups: Rollups = {}
    spent: Spent = {}
    for row in store.rows():
        key = row.client_id, row.sku, row.occurred_at // HOUR * HOUR
        credits, quantity = rollups.get(key, (0, 0))
        rollups[key] = credits + row.credits, quantity + row.quantity
        for grant, paid in row.grants:
            spent[row.client_id, grant] = spent.get((row.client_id, grant), 0) + paid
    assert store.rollups() == rollups
    assert store.spent() == spent
