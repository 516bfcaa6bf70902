"""What the tables' triggers refuse: what is written once stays, and a generation follows the one before."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Final

from billing.schema.stripe import OF_GENERATION, WRITE_ONCE
from billing.sinks.sync.increment import Increment, State
from billing.sinks.sync.log import Open

_MAY_BE_REPLACED: Final = (State.PENDING, State.AMBIGUOUS, State.REJECTED, State.QUARANTINED)


class Refused(Exception):
    """A rule of the tables was about to be broken."""


def refuse_payload_change(was: Increment, new: Increment) -> None:
    """Do what the trigger does."""
    if _values(was, WRITE_ONCE) != _values(new, WRITE_ONCE):
        raise Refused(f"what increment {was.increment_id} carries is written once")
    if was.generation == new.generation:
        if _values(was, OF_GENERATION) != _values(new, OF_GENERATION):
            raise Refused(f"the payload of increment {was.increment_id} is written once")
        return
    follows = new.generation == was.generation + 1 and new.identifier != was.identifier
    if not follows or was.state not in _MAY_BE_REPLACED or new.first_attempt_at is not None:
        raise Refused(f"increment {was.increment_id} is {was.state.value}, and has no generation {new.generation}")


def _values(one: Increment, names: Sequence[str]) -> list[object]:
    return [getattr(one, name) for name in names]


def place_of(increment: Increment) -> tuple[str, str, datetime]:
    """Return what no two of an increment's generations that were sent share, unless they are in one minute."""
    return increment.kind.value, increment.customer_id, increment.event_at


def wanted(one: Increment, found: Open) -> bool:
    """Whether a search is for an increment like this one."""
    return found.client_id in (None, one.client_id) and one.event_name not in found.without
