"""What a person says of an increment in doubt: seen at the sink, not there, or never to be billed.

What they say, and why, is on record with what it changed (L8). Refused for increments that find their own way.
"""

from __future__ import annotations

import dataclasses
from datetime import datetime
from typing import Final, Literal, Protocol, get_args

from billing.core.errors import Conflict, InvalidValue
from billing.sinks.sync import protocol
from billing.sinks.sync.increment import Increment
from billing.sinks.sync.log import Decide

ResolvedAs = Literal["confirmed", "resend", "write-off"]
#: Characters of a reason that are kept.
_REASON_LENGTH_MAX: Final = 500


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Resolution:
    """What a person said, and when."""

    resolved_as: ResolvedAs
    reason: str
    resolved_at: datetime


class Resolutions(Protocol):
    """Where it is kept, with the increment."""

    def resolve(self, increment_id: int, decide: Decide, resolution: Resolution) -> Increment | None:
        """Change an increment and keep the resolution, in one transaction; None when it is unknown.

        The same resolution of the same generation again changes nothing, and returns the increment as it is.
        """
        ...


def resolve(log: Resolutions, increment_id: int, resolution: Resolution) -> Increment:
    """Resolve an increment; return it as it is then. The same again is harmless.

    Raises `InvalidValue` for a resolution or a reason that says nothing and for an unknown increment, `Conflict` for
    an increment that is not a person's business.
    """
    if resolution.resolved_as not in get_args(ResolvedAs):
        raise InvalidValue("as", resolution.resolved_as, f"must be one of {', '.join(get_args(ResolvedAs))}")
    reason = check_reason(resolution.reason)
    said = dataclasses.replace(resolution, reason=reason)

    def decide(increment: Increment) -> Increment:
        if not protocol.may_resolve(increment, said.resolved_at):
            rule = "only what is rejected, quarantined or ambiguous, and not sent just now, is for a person to resolve"
            raise Conflict(f"increment: {increment_id}: is {increment.state.value}: {rule}")
        if said.resolved_as == "confirmed":
            return protocol.resolved_as_confirmed(increment, reason, said.resolved_at)
        if said.resolved_as == "resend":
            return protocol.resolved_as_absent(increment, reason, said.resolved_at)
        return protocol.written_off(increment, reason)

    found = log.resolve(increment_id, decide, said)
    if found is None:
        raise InvalidValue("increment", increment_id, "is not a known increment (see: billing sync status)")
    return found


def check_reason(said: str) -> str:
    """Return a reason in one line. Raises `InvalidValue` when it says nothing, or too much."""
    reason = " ".join(said.split())
    if not reason or len(reason) > _REASON_LENGTH_MAX:
        raise InvalidValue("reason", said, f"must say why, in 1 to {_REASON_LENGTH_MAX} characters")
    return reason
