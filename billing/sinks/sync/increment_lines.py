"""The lines of the log about increments (`billing.increments`): one for each change of state, once it is committed."""

from __future__ import annotations

import logging
from typing import Final

from billing.core.change_log import INCREMENTS, log_change
from billing.sinks.sync.increment import Increment, State

#: What somebody may have to look at.
_DOUBTFUL: Final = (State.AMBIGUOUS, State.REJECTED, State.QUARANTINED)


def tell_increment(increment: Increment | None, *, was: Increment | None = None) -> None:
    """Tell of an increment that was planned, or has a new state. Not the reason, which may be the sink's words."""
    if increment is None or (was and (increment.state, increment.generation) == (was.state, was.generation)):
        return
    log_change(
        INCREMENTS,
        increment.state.value,
        logging.WARNING if increment.state in _DOUBTFUL else logging.INFO,
        increment_id=increment.increment_id,
        client_id=increment.client_id,
        meter=increment.event_name,
        units=increment.units,
        generation=increment.generation,
        attempts=increment.attempts,
        was=was.state.value if was else None,
    )
