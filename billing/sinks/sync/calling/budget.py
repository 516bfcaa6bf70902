"""The rate of calls that a fleet shares: each call waits for its turn, and no second has more of them than are allowed.

Turns are `SPREAD` times as far apart as the rate says, and one that is not used within `LAPSE` is lost: so much late,
calls of two turns still do not come too close. What is lost is lost to all (L9), so turns are taken one by one.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol

from sqlalchemy import Engine, text

from billing.core.clock import Clock

#: By how much turns are further apart than the rate says: a call may come that much of a second late.
SPREAD: Final = 1.05
LAPSE_SECONDS: Final = 0.05
#: How far ahead a turn may be: the crowd before it is larger than any fleet's, or the clock was set back since.
AHEAD_SECONDS_MAX: Final = 60.0
#: Turns in a row that may be lost: on a machine that is this slow nothing is kept in time.
LOST_MAX: Final = 100

#: The names of the budgets.
EVENTS: Final = "events"
READS: Final = "reads"
#: Stripe's bound on calls that are no meter events, per endpoint, in a second.
READS_PER_SECOND: Final = 25

Wait = Callable[[float], object]


class Budget(Protocol):
    """Calls per second, shared by all who call."""

    def take(self) -> float:
        """Take the next turn; return in how many seconds it is."""
        ...


def await_turn(budget: Budget | None, clock: Clock, wait: Wait, goes_on: Callable[[], bool] = lambda: True) -> bool:
    """Wait until a call may be made now; False when none may be. Without a budget, each may."""
    if budget is None:
        return True
    for _ in range(LOST_MAX):
        asked = clock.monotonic()
        seconds = budget.take()
        if seconds > 0:
            wait(seconds)
        if not goes_on():
            return False
        if clock.monotonic() - asked - seconds <= LAPSE_SECONDS:
            return True
    return False


#: Move on from the later of now and the latest turn. A turn that is too far ahead is of a clock that was set back.
_TAKE: Final = text("""
INSERT INTO stripe_budget AS budget (name, free_at) VALUES (:name, clock_timestamp() + :apart)
ON CONFLICT (name) DO UPDATE
SET free_at = :apart + CASE WHEN budget.free_at BETWEEN clock_timestamp() AND clock_timestamp() + :ahead
                            THEN budget.free_at ELSE clock_timestamp() END
RETURNING CAST(extract(epoch FROM free_at - :apart - clock_timestamp()) AS double precision) AS seconds
""")
#: What a crash takes back are turns of its last instant: by the time that the server is there again they are over.
_UNSYNCED: Final = text("SET LOCAL synchronous_commit = off")


class PostgresBudget:
    """A `Budget` in the table `stripe_budget`, on the database's clock: the machines' own ones may differ."""

    def __init__(self, engine: Engine, name: str, *, per_second: float) -> None:
        self._engine = engine
        apart = timedelta(seconds=SPREAD / per_second)
        self._given = {"name": name, "apart": apart, "ahead": timedelta(seconds=AHEAD_SECONDS_MAX)}

    def take(self) -> float:
        """Take the next turn; return in how many seconds it is."""
        with self._engine.begin() as connection:
            connection.execute(_UNSYNCED)
            seconds: float = connection.execute(_TAKE, self._given).scalar_one()
        return max(0.0, seconds)
