"""The clients: what each uses, and what happens to it. A plan of a month, drawn from the seed before it begins."""

from __future__ import annotations

import dataclasses
from typing import Final

from tests.simulation.chance import BEGINNING_MS, Chance
from tests.simulation.sync.chances import DAY, HOUR

#: SKUs, and the meter that counts each: a unit of `tokens` is 1,000 credits, one of `credits` is one.
SKUS: Final = ("search", "page", "token")
METER_OF: Final = {"token": "tokens"}
CREDITS_PER_UNIT: Final = {"credits": 1, "tokens": 1_000}
METERS: Final = tuple(CREDITS_PER_UNIT)

#: How many of 100 clients use something once in so many hours.
Habits = tuple[tuple[int, int], ...]
HABITS: Final[Habits] = ((5, 1), (35, 36), (40, 240), (20, 0))
#: How late usage arrives, in ms: as a rule at once, some hours or days later, or when its invoice is final long since.
_LATENESS: Final = (
    (900, (0, 0)),
    (50, (HOUR, 8 * HOUR)),
    (30, (8 * HOUR, 3 * DAY)),
    (15, (3 * DAY, 9 * DAY)),
    (5, (9 * DAY, 25 * DAY)),
)


@dataclasses.dataclass(slots=True, kw_only=True)
class Client:
    """One client. Times are ms; None: it never happens."""

    client_id: str
    #: Hours between two uses, on average; 0: it is idle.
    every_hours: int
    begins_ms: int
    anchor_after_ms: int
    linked_ms: int
    cancels_ms: int | None = None
    deleted_ms: int | None = None
    customer_id: str = ""
    is_deleted: bool = False

    @property
    def is_broken(self) -> bool:
        """Whether its customer is deleted at some time."""
        return self.deleted_ms is not None


@dataclasses.dataclass(slots=True, kw_only=True, order=True)
class Use:
    """Usage of one hour, or what was returned of it (credits below 0), as it arrives."""

    arrives_ms: int
    number: int
    client: int
    sku: str
    hour_ms: int
    credits: int


def clients(chance: Chance, count: int, days: int, *, habits: Habits, deleted_once_in: int) -> list[Client]:
    """Return the clients of a world of so many days."""
    return [_client(chance, number, days, habits, deleted_once_in) for number in range(count)]


def _client(chance: Chance, number: int, days: int, habits: Habits, deleted_once_in: int) -> Client:
    late_start = chance.once_in(8)
    begins = BEGINNING_MS + (chance.whole(1, days * DAY * 2 // 3) if late_start else chance.whole(0, 2 * HOUR))
    linked = begins + (chance.whole(HOUR, max(2, days // 3) * DAY) if chance.once_in(10) else 0)
    later = begins + chance.whole(DAY // 2, days * DAY)
    return Client(
        client_id=f"client-{number:05d}",
        every_hours=chance.weighted(habits),
        begins_ms=begins,
        anchor_after_ms=chance.whole(1, min(27, days) * DAY),
        linked_ms=linked,
        cancels_ms=later if chance.once_in(15) else None,
        deleted_ms=later if deleted_once_in and chance.once_in(deleted_once_in) else None,
    )


def next_use(chance: Chance, client: Client, after_ms: int) -> int:
    """Return when it uses something again."""
    return after_ms + chance.whole(1, 2 * client.every_hours * HOUR)


def uses(chance: Chance, client: Client, number: int, at_ms: int, first: int) -> list[Use]:
    """Return what a client uses at a time, each with its arrival; `first` numbers them."""
    hour = at_ms - at_ms % HOUR
    least, most = chance.weighted(_LATENESS)
    sku = chance.one_of(SKUS)
    amount = chance.whole(1, 4_000) * (chance.whole(1, 9) if sku == "token" else 1)
    made = Use(
        arrives_ms=at_ms + chance.whole(least, most), number=first, client=number, sku=sku, hour_ms=hour, credits=amount
    )
    found = [made]
    if chance.once_in(20):
        # What is given back is dated when it is given back, and never more than was used.
        at = made.arrives_ms + chance.whole(1, 3 * DAY)
        back = -chance.whole(1, amount)
        found.append(Use(arrives_ms=at, number=first + 1, client=number, sku=sku, hour_ms=at - at % HOUR, credits=back))
    return found
