"""Whether this machine's clock may be trusted with money: periods close, and events are dated, by it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import Engine, text

from billing.core.clock import Clock, behind
from billing.core.errors import Fatal

#: Stripe takes no event that is more than five minutes ahead, and a period closes ten minutes before its invoice may be
#: final: between these, machines of a fleet may differ.
DIFFERENCE_MAX: Final = timedelta(minutes=4)


def check_clock(engine: Engine, clock: Clock) -> None:
    """Raise `Fatal` when this machine's clock differs from PostgreSQL's, which all of a fleet share, by too much."""
    with engine.connect() as connection:
        late = behind(clock, lambda: connection.execute(text("SELECT clock_timestamp()")).scalar_one())
    if abs(late) > DIFFERENCE_MAX:
        way = f"{late} behind" if late > timedelta() else f"{-late} ahead of"
        most = int(DIFFERENCE_MAX.total_seconds() // 60)
        raise Fatal(f"clock: this machine is {way} PostgreSQL's time, must be at most {most} minutes: set it by NTP")
