"""The terms of a grant as PostgreSQL has them, checked when they come in, and as a bucket takes them. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from billing.core.clock import to_milliseconds
from billing.core.errors import InvalidValue
from billing.core.identifiers import check_sku
from billing.credits.terms import PRIORITY, GrantTerms

KINDS: Final = ("paid", "promo", "allowance", "adjustment")
PRIORITY_MAX: Final = 1_000_000
#: SKUs that one grant may name, and all grants of a client that have credits left: every reserve and settle of the
#: client reads them (L9).
SKUS_MAX: Final = 32
SKUS_OF_CLIENT_MAX: Final = 256


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """What is agreed of a grant besides its credits. The lowest priority burns first; no SKUs stands for every SKU."""

    kind: str = "paid"
    priority: int = PRIORITY
    expires_at: datetime | None = None
    skus: tuple[str, ...] = ()

    def __str__(self) -> str:
        ends = "never" if self.expires_at is None else self.expires_at.astimezone(UTC).isoformat()
        return f"kind {self.kind}, priority {self.priority}, expires {ends}, SKUs {', '.join(self.skus) or 'all'}"


ORDINARY: Final = Terms()


def check_terms(
    *, kind: object = "paid", priority: object = PRIORITY, expires_at: object = None, skus: Sequence[object] = ()
) -> Terms:
    """Return the terms if each is within its rule. The time is cut to the millisecond, which is what a bucket knows."""
    if kind not in KINDS:
        raise InvalidValue("kind", kind, f"must be one of {', '.join(KINDS)}")
    if isinstance(priority, bool) or not isinstance(priority, int) or not 0 <= priority <= PRIORITY_MAX:
        raise InvalidValue("priority", priority, f"must be a whole number from 0 to {PRIORITY_MAX}")
    if len(skus) > SKUS_MAX:
        raise InvalidValue("skus", len(skus), f"must be at most {SKUS_MAX}")
    ends = None
    if expires_at is not None:
        if not isinstance(expires_at, datetime) or expires_at.tzinfo is None:
            raise InvalidValue("expires_at", expires_at, "must be an aware datetime")
        ends = expires_at.astimezone(UTC)
        ends = ends.replace(microsecond=ends.microsecond // 1_000 * 1_000)
    checked = tuple(sorted({check_sku(sku) for sku in skus}))
    return Terms(kind=str(kind), priority=priority, expires_at=ends, skus=checked)


def check_in_future(expires_at: datetime | None, now: datetime) -> None:
    """Refuse an expiry that has passed."""
    if expires_at is not None and expires_at <= now:
        rule = f"must be after the present, {now.astimezone(UTC).isoformat()}"
        raise InvalidValue("expires_at", expires_at.isoformat(), rule)


def bucket_terms(
    *, priority: int, expires_at: datetime | None, skus: Sequence[str], voided_at: datetime | None
) -> GrantTerms:
    """Return the terms as a bucket takes them. A void after the expiry takes nothing any more."""
    voided = voided_at is not None and (expires_at is None or voided_at < expires_at)
    return GrantTerms(
        priority=priority,
        expires_ms=0 if expires_at is None else to_milliseconds(expires_at),
        skus=tuple(skus),
        voided_ms=to_milliseconds(voided_at) if voided_at is not None and voided else 0,
    )
