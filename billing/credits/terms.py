"""The terms of a grant and of a client, as callers say them and as a bucket writes them (lua/bucket.lua). Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from billing.core.identifiers import check_sku

#: The priority of a grant that says none: lower burns first.
PRIORITY: Final = 100


class ClientState(Enum):
    """What a client may do. The value is how its bucket writes it."""

    ACTIVE = "a"
    #: No reserve is admitted; what runs is settled.
    SUSPENDED = "s"
    #: As suspended; the ledger writes no grant either. One that it has goes into the bucket.
    CLOSED = "c"


@dataclass(frozen=True, kw_only=True, slots=True)
class GrantTerms:
    """When a grant burns and what for. Times are ms of Redis' clock, 0 for never; no SKUs stands for every SKU.

    A grant pays until the millisecond before `expires_ms`. `voided_ms`: since when it is taken back.
    """

    priority: int = PRIORITY
    expires_ms: int = 0
    skus: tuple[str, ...] = ()
    voided_ms: int = 0

    def text(self) -> str:
        """Return what stands behind the grant in its bucket: nothing for ordinary terms."""
        if self == ORDINARY:
            return ""
        numbers = (str(self.priority), str(self.expires_ms), str(self.voided_ms))
        return "@" + ",".join((*numbers, *(check_sku(sku) for sku in self.skus)))

    @property
    def ends(self) -> bool:
        """Whether the grant will ever end, or has."""
        return self.voided_ms > 0 or self.expires_ms > 0

    def ended_at(self, now_ms: int) -> bool:
        """Whether the grant pays nothing at this moment, whatever it has left."""
        return self.voided_ms > 0 or 0 < self.expires_ms <= now_ms

    def fits(self, sku: str) -> bool:
        """Whether the grant pays for this SKU at all."""
        return not self.skus or sku in self.skus


ORDINARY: Final = GrantTerms()


def read_terms(text: str) -> GrantTerms:
    """Read what `GrantTerms.text` wrote, without its first sign."""
    priority, expires, voided, *skus = text.split(",")
    return GrantTerms(priority=int(priority), expires_ms=int(expires), voided_ms=int(voided), skus=tuple(skus))


@dataclass(frozen=True, kw_only=True, slots=True)
class ClientTerms:
    """A client's state, and how many credits it may owe."""

    state: ClientState = ClientState.ACTIVE
    overdraft_limit: int = 0
