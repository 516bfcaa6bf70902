"""How the continuous reconciler stands: its last pass, how old that is, what stands, what it could not compare."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any, Final

from billing.connections import postgres
from billing.ledger import postings
from billing.ledger.postings import Refused
from billing.reconciliation.continuous import keeping
from billing.reconciliation.continuous.standing import Standing
from billing.task.runtime import Runtime

#: A last pass that ended longer ago than this is late: some pass lengths, for a share that does not suffice for one.
LATE_PASSES, LATE_SECONDS_MIN = 3, 120.0
#: Discrepancies that are shown.
SHOWN_MAX: Final = 50


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Pass:
    """A pass that came to an end. `not_compared`: reason → how many clients, for several passes in a row, and whom.

    `busy_seconds` is what it cost, as `pace.py` counts it. `sums_at`: when all rollups' sums were last compared.
    """

    started_at: datetime
    finished_at: datetime
    clients: int
    busy_seconds: float
    not_compared: Mapping[str, Mapping[str, Any]]
    sums_at: datetime | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Status:
    """The reconciler as of now. `stands` are the first of `standing` discrepancies.

    `refused`: the first postings that buckets do not take, by which the log is no difference and not in them either.
    """

    on: bool
    passes: int
    age_seconds: float | None
    late: bool
    last_pass: Pass | None
    standing: int
    stands: tuple[Standing, ...]
    refused: tuple[Refused, ...] = ()

    @property
    def not_compared(self) -> int:
        """How many clients could not be compared for several passes."""
        return sum(int(one["clients"]) for one in self.last_pass.not_compared.values()) if self.last_pass else 0

    @property
    def ok(self) -> bool:
        """Whether it is at work, and everything was compared and agrees."""
        return self.last_pass is not None and not (self.late or self.standing or self.not_compared or self.refused)


def read_status(runtime: Runtime) -> Status:
    """Return how the reconciler stands. Raises `Unreachable`."""
    settings = runtime.settings
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        place = keeping.place_of(connection)
        stands = keeping.standing(connection, SHOWN_MAX)
        refused = postings.refused(connection, SHOWN_MAX)
        standing = keeping.count_standing(connection) if len(stands) == SHOWN_MAX else len(stands)
    last = _pass(place.last_pass) if place is not None and place.last_pass else None
    age = None if last is None else max(runtime.clock.now() - last.finished_at, timedelta()).total_seconds()
    bound = max(LATE_PASSES * settings.reconcile_pass_seconds, LATE_SECONDS_MIN)
    return Status(
        on=settings.reconcile_pass_seconds > 0,
        passes=0 if place is None else place.passes,
        age_seconds=age,
        late=age is not None and age > bound,
        last_pass=last,
        standing=standing,
        stands=tuple(stands),
        refused=tuple(refused),
    )


def _pass(row: Mapping[str, Any]) -> Pass:
    sums_at = row["sums_at"]
    return Pass(
        started_at=datetime.fromisoformat(row["started_at"]),
        finished_at=datetime.fromisoformat(row["finished_at"]),
        clients=row["clients"],
        busy_seconds=row["busy_seconds"],
        not_compared=row["not_compared"],
        sums_at=None if sums_at is None else datetime.fromisoformat(sums_at),
    )
