"""The test's own books: what was granted, what each piece of work costs, and who holds what. Pure.

They know nothing of the product's tables or buckets: an amount here is what the test ordered, times a price that is
written here, and whether a task succeeded is what its caller was told.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Iterable, Mapping

from tests.fleet.harness import PRICES
from tests.fleet.tasks import OTHER_SKU, SKU


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """A line that a success puts into the usage history."""

    client_id: str
    correlation_id: str
    sku: str
    quantity: int
    credits: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Work:
    """Something that is billed: a task of the fleet or a block. `used`: quantity by SKU if it succeeds."""

    client_id: str
    task: str
    args: tuple[object, ...] = ()
    used: Mapping[str, int] = dataclasses.field(default_factory=dict)

    def charges(self, correlation_id: str) -> list[Charge]:
        """Return the lines of its success."""
        return [
            Charge(
                client_id=self.client_id,
                correlation_id=correlation_id,
                sku=sku,
                quantity=quantity,
                credits=quantity * PRICES[sku],
            )
            for sku, quantity in self.used.items()
        ]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True, order=True)
class Held:
    """A hold: who, for what, how much."""

    client_id: str
    sku: str
    credits: int


def ok(client_id: str) -> Work:
    """Return a task of one unit."""
    return Work(client_id=client_id, task="ok", used={SKU: 1})


def mixed(client_id: str, number: int) -> Work:
    """Return a task of one of five kinds: less used than held, two SKUs, one that fails, and two plain ones."""
    kinds = (
        Work(client_id=client_id, task="metered", args=(5, 2), used={SKU: 2}),
        Work(client_id=client_id, task="lines", args=(3,), used={SKU: 1, OTHER_SKU: 3}),
        Work(client_id=client_id, task="fails"),
        Work(client_id=client_id, task="works", used={SKU: 1}),
        ok(client_id),
    )
    return kinds[number % len(kinds)]


class Books:
    """What every client must have, whatever befell Redis."""

    def __init__(self) -> None:
        self.granted: collections.Counter[str] = collections.Counter()
        #: By what its rows are found with: a task's id, a block's key.
        self.work: dict[str, Work] = {}
        self.succeeded: set[str] = set()
        self.open: dict[str, Held] = {}

    def grant(self, client_ids: Iterable[str], credits_: int) -> None:
        """Note a grant to each of some clients."""
        self.granted.update(dict.fromkeys(client_ids, credits_))

    def hold(self, correlation_id: str, work: Work, held: Held) -> None:
        """Note work that holds credits until it is closed."""
        self.work[correlation_id] = work
        self.open[correlation_id] = held

    def close(self, correlation_ids: Iterable[str], *, succeeded: bool) -> None:
        """Note the end of work that held."""
        for correlation_id in correlation_ids:
            del self.open[correlation_id]
            if succeeded:
                self.succeeded.add(correlation_id)

    def charges(self) -> list[Charge]:
        """Return the lines of all that has succeeded, as `usage_history` must have them, each once."""
        found = [charge for key in self.succeeded for charge in self.work[key].charges(key)]
        return sorted(found, key=lambda charge: (charge.correlation_id, charge.sku))

    def charged(self) -> collections.Counter[str]:
        """Return what each client has paid."""
        paid: collections.Counter[str] = collections.Counter()
        for charge in self.charges():
            paid[charge.client_id] += charge.credits
        return paid

    def standing(self) -> dict[str, tuple[int, int]]:
        """Return what each client has available and held."""
        paid, held = self.charged(), collections.Counter[str]()
        for hold in self.open.values():
            held[hold.client_id] += hold.credits
        return {
            client_id: (granted - paid[client_id] - held[client_id], held[client_id])
            for client_id, granted in self.granted.items()
        }
