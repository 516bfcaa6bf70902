"""What a correction of a usage line may be, and which grants it returns to. Pure.

A line stays corrected within what it was charged, either way: all that is returned brings it to 0 at most, all that is
charged more at most doubles it. What is returned goes to exactly those who pay the line now, debt first, then from the
last of them to the first: what stays charged is what a smaller charge would have taken.
"""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Iterable, Mapping, Sequence

from billing.core.credits import CREDITS_MAX, NO_GRANT
from billing.core.errors import InvalidValue

#: Grant → credits, in the order in which they paid.
Shares = Mapping[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """A correction that was made before. `credits` and `grants` are below 0 where it returned."""

    run_id: uuid.UUID
    credits: int
    grants: Shares


def shares_of(grants: Iterable[Mapping[str, int]]) -> dict[int, int]:
    """Return the shares of a row of the history, or of a correction."""
    found: dict[int, int] = {}
    for share in grants:
        found[share["grant"]] = found.get(share["grant"], 0) + share["credits"]
    return found


def check_credits(credits_: object) -> int:
    """Return a correction's credits: a whole number other than 0, at most 2^53 - 1 either way."""
    if isinstance(credits_, bool) or not isinstance(credits_, int) or not 1 <= abs(credits_) <= CREDITS_MAX:
        raise InvalidValue("credits", credits_, f"must be a whole number from 1 to {CREDITS_MAX}, or the same below 0")
    return credits_


def check_bound(line: str, charged: int, before: Sequence[Correction], credits_: int, *, again: bool) -> None:
    """Refuse what would correct a line by more than it was charged, or in the same direction a second time.

    `line` is how the message names it, `before` what corrected it so far.
    """
    if not charged:
        raise InvalidValue("credits", credits_, f"{line} was charged 0 credits; there is nothing to correct")
    net = sum(one.credits for one in before)
    room = charged + net if credits_ < 0 else charged - net
    if abs(credits_) > room:
        so_far = f" and corrected by {net:+,} so far" if before else ""
        most = f"-{room}" if credits_ < 0 and room else f"{room}"
        rule = (
            f"must be at {'least' if credits_ < 0 else 'most'} {most}: {line} was charged {charged:,} credits{so_far}"
        )
        raise InvalidValue("credits", credits_, rule)
    same = [one for one in before if (one.credits < 0) == (credits_ < 0)]
    if same and not again:
        rule = (
            f"{line} was corrected by {same[-1].credits:+,} before, as {same[-1].run_id}; "
            "to do so once more it takes --again (again=True)"
        )
        raise InvalidValue("credits", credits_, rule)


def returned(paid: Shares, before: Iterable[Correction], credits_: int) -> dict[int, int]:
    """Return to whom `credits_` (below 0) of a line go back: a grant's share is below 0, too."""
    left = dict(paid)
    for one in before:
        for grant, share in one.grants.items():
            left[grant] = left.get(grant, 0) + share
    need = -credits_
    found: dict[int, int] = {}
    for grant in (NO_GRANT, *(grant for grant in reversed(left) if grant != NO_GRANT)):
        part = min(need, left.get(grant, 0))
        if part > 0:
            found[grant] = -part
            need -= part
    if need:
        message = f"{need} credits of the line were paid by no grant"
        raise AssertionError(message)
    return found
