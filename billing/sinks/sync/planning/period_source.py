"""Where billing periods come from: what the planner asks a sink about some customers, and what it hears."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Protocol

from billing.sinks.sync.planning.periods import KnownPeriod


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PeriodsFound:
    """What a sink knows of one customer. It replaces what was known of these periods before; older ones stay.

    `periods`: of each meter (event name) that something bills for the customer, the oldest first: the present one, and
    the one before it as long as the sink tells of it. A meter that nothing bills any more has none, or ended ones.
    `reasons`: of each meter that something bills and that has no present period nonetheless, why; under "" what is so
    for all meters (the customer is deleted, has no subscription). One line each.
    """

    periods: Mapping[str, Sequence[KnownPeriod]]
    reasons: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def reason(self, event_name: str) -> str:
        """Return why there is no present period of a meter; empty when nothing is known against it."""
        return self.reasons.get(event_name) or self.reasons.get("", "")


class PeriodSource(Protocol):
    """Tells billing periods as the sink has them now. One belongs to one thread."""

    def read(self, customer_ids: Sequence[str]) -> Mapping[str, PeriodsFound]:
        """Return what is known of some customers; who is not in it could not be read: what was known stays.

        At most a few calls for each customer, each at its turn of the fleet's rate; one customer's error keeps no
        other waiting (L10). Raises `Fatal` when the sink refuses the key, `Unreachable` when it answers for nobody.
        """
        ...

    def close(self) -> None:
        """Close its connections."""
        ...
