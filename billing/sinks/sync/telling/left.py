"""What is left of one client on its way to the sink: unplanned credits, and increments that may not be there."""

from __future__ import annotations

import dataclasses
from collections import Counter
from typing import Final

from sqlalchemy import Connection, text


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class LeftUnits:
    """A client's increments of one state that may not be at the sink, with the reason that one of them gives."""

    state: str
    increments: int
    units: int
    reason: str


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Left:
    """What a client has left.

    `credits` should be on their way and are not. `remainder` is less than one unit of each meter, and `carried` was
    returned beyond what was used: both wait for later usage.
    """

    linked: bool
    credits: int = 0
    remainder: int = 0
    carried: int = 0
    increments: tuple[LeftUnits, ...] = ()

    @property
    def is_all_there(self) -> bool:
        """Whether nothing is left that should be gone."""
        return not self.credits and not self.increments


_LINK: Final = text("SELECT EXISTS (SELECT FROM stripe_customer WHERE client_id = :client_id)")

#: What no increment carries, by meter, beside the meter's unit.
_UNPLANNED: Final = text("""
SELECT coalesce(placed.event_name, :meter) AS event_name, coalesce(max(meter.credits_per_unit), 1) AS credits_per_unit,
       sum(rollup.credits - rollup.planned)::bigint AS credits
FROM usage_rollup AS rollup LEFT JOIN sku_meter AS placed ON placed.sku = rollup.sku
     LEFT JOIN meter ON meter.event_name = coalesce(placed.event_name, :meter)
WHERE rollup.client_id = :client_id AND rollup.unplanned
GROUP BY 1
""")

_INCREMENTS: Final = text("""
SELECT state, count(*) AS increments, sum(units)::bigint AS units, coalesce(max(reason), '') AS reason
FROM stripe_increment WHERE client_id = :client_id AND state NOT IN ('sent', 'confirmed', 'written_off')
GROUP BY state ORDER BY state
""")


def read_left(connection: Connection, client_id: str, *, meter: str) -> Left:
    """Return what a client has left; `meter` counts the SKUs that have none of their own."""
    given = {"client_id": client_id, "meter": meter}
    sums: Counter[str] = Counter()
    for row in connection.execute(_UNPLANNED, given):
        kind = "carried" if row.credits < 0 else "remainder" if row.credits < row.credits_per_unit else "credits"
        sums[kind] += abs(row.credits)
    return Left(
        linked=connection.execute(_LINK, given).scalar_one(),
        credits=sums["credits"],
        remainder=sums["remainder"],
        carried=sums["carried"],
        increments=tuple(LeftUnits(**row) for row in connection.execute(_INCREMENTS, given).mappings()),
    )
