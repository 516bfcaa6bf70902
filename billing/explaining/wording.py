"""How amounts, shares, spans and increments are written in a story. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

from billing.core.printable import printable
from billing.explaining.evidence import Grant
from billing.sinks.sync.increment import Increment, State

_STATES = {
    State.PENDING: "planned in increment {}, not sent yet",
    State.SENDING: "being sent to Stripe in increment {}",
    State.SENT: "sent to Stripe in increment {}, not confirmed yet",
    State.CONFIRMED: "confirmed at Stripe in increment {}",
    State.AMBIGUOUS: "sent in increment {}, and whether Stripe has it is not known yet",
    State.REJECTED: "rejected by Stripe in increment {}",
    State.QUARANTINED: "quarantined in increment {}",
    State.WRITTEN_OFF: "written off in increment {}: on no invoice",
}


def credits_(amount: int) -> str:
    """Return an amount with its word."""
    return f"{amount:,} credit" if abs(amount) == 1 else f"{amount:,} credits"


def quoted(name: str) -> str:
    """Return a name from outside, quoted."""
    return f"'{printable(name)}'"


def shares(grants: Mapping[int, int], known: Mapping[int, Grant]) -> str:
    """Return who paid how much: grants by id, kind and key; grant 0 is debt."""
    return ", ".join(f"{amount:,} from {_grant(grant, known)}" for grant, amount in grants.items())


def _grant(grant: int, known: Mapping[int, Grant]) -> str:
    if not grant:
        return "nobody (debt)"
    found = known.get(grant)
    if found is None:
        return f"grant {grant}"
    key = f", key {quoted(found.key)}" if found.key else ""
    return f"grant {grant} ({found.kind}{key})"


def increment(found: Increment) -> str:
    """Return how an increment stands."""
    return _STATES[found.state].format(found.increment_id)


def span(seconds: float) -> str:
    """Return a span of time in one unit."""
    for length, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"


def instant(at: datetime) -> str:
    """Return an instant in UTC, to the second."""
    return f"{at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
