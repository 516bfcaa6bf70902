"""Postings: what the log says beyond a bucket's own settles, brought into it as absolute totals with a version.

A bucket takes a posting of its own epoch alone, and each version once: applied late, twice or at once by two workers it
comes to the same. What a grant has no more becomes debt, which is told apart (`Balance.beyond`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final

from billing.core.credits import CREDITS_MAX, check_amount
from billing.core.errors import InvalidValue

#: Grants that one call posts to at most (L9).
GRANTS_MAX: Final = 500


class PostOutcome(Enum):
    """What `post` did. `POSTED` and `ALREADY` mean that the bucket has every total."""

    POSTED = "POSTED"
    ALREADY = "ALREADY"
    #: The bucket is of another epoch: a newer one has these credits in its sums.
    STALE = "STALE"
    UNKNOWN_CLIENT = "UNKNOWN_CLIENT"
    RECOVERING = "RECOVERING"
    #: A sum of the bucket would pass 2^53 - 1; nothing was changed.
    TOO_LARGE = "TOO_LARGE"
    #: A version that the bucket has seen has other totals now: PostgreSQL has lost transactions. Nothing was changed.
    REUSED = "REUSED"
    #: More is given back than the bucket says was ever spent; nothing was changed.
    UNCOVERED = "UNCOVERED"
    CORRUPT = "CORRUPT"


@dataclass(frozen=True, kw_only=True, slots=True)
class Posting:
    """The totals of one grant (0: debt). `credits`: to be taken as spent, below 0 given back.

    `restored`: put back without having been spent, below 0 taken away; for repairs. It is of a grant, never of debt.
    `entered`: what the ledger has of the grant's end. That much has expired, or is voided, whatever the log says later.
    """

    grant_id: int
    version: int
    credits: int
    restored: int = 0
    entered: int = 0

    def numbers(self) -> tuple[int, int, int, int, int]:
        """Return what a script takes. Raises `InvalidValue` for what no bucket could mean."""
        check_amount("grant_id", self.grant_id, minimum=0)
        check_amount("version", self.version)
        check_amount("entered", self.entered, minimum=0)
        for name, credits_ in (("credits", self.credits), ("restored", self.restored)):
            if not -CREDITS_MAX <= credits_ <= CREDITS_MAX:
                raise InvalidValue(name, credits_, f"must be within {CREDITS_MAX} either way")
        if self.restored and not self.grant_id:
            raise InvalidValue("restored", self.restored, "is of a grant, not of debt")
        return self.grant_id, self.version, self.credits, self.restored, self.entered


def check_rows(rows: Sequence[Posting]) -> list[int]:
    """Return the numbers of rows, each of another grant; raise `InvalidValue` for what no bucket could mean."""
    if len(rows) > GRANTS_MAX or len({row.grant_id for row in rows}) < len(rows):
        raise InvalidValue("rows", len(rows), f"must be at most {GRANTS_MAX}, of a grant each")
    return [number for row in rows for number in row.numbers()]


@dataclass(frozen=True, kw_only=True, slots=True)
class Posted:
    """What was posted to a grant of a bucket: absolute totals, and the version that they are of."""

    version: int
    credits: int
    restored: int
