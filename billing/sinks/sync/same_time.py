"""Whether this machine's clock may be trusted with money: periods close, and events are dated, by it."""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from sqlalchemy import Engine, text

from billing.core.clock import Clock
from billing.core.errors import Fatal

#: Stripe takes no event that is more than five minutes ahead, and a period closes ten minutes before its invoice may be
#: final: between these, machines of a fleet may differ.
DIFFERENCE_MAX: Final = timedelta(minutes=4)


def check_clock(engine: Engine, clock: Clock) -> None:
    """Raise `Fatal` when this machine's clock differs from PostgreSQL's, which all of a fleet share, by too much."""
    with engine.connect() as connection:
        before = clock.now()
        theirs = connection.execute(text("SELECT clock_timestamp()")).scalar_one()
        after = clock.now()
    # The answer was made somewhere between the two; what that leaves open is not counted.
    behind, ahead = theirs - after, before - theirs
    if max(behind, ahead) > DIFFERENCE_MAX:
        way = f"{behind} behind" if behind > ahead else f"{ahead} ahead of"
        most = int(DIFFERENCE_MAX.total_seconds() // 60)
        raise Fatal(f"clock: this machine is {way} PostgreSQL's time, must be at most {most} minutes: set it by NTP")
