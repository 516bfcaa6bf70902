"""Which grants pay a charge that no bucket has paid (a direct event), from the ledger alone. Pure.

Each line is paid in burn order by what had not ended when the work finished, fits the line's SKU, and is left; the rest
is debt, grant 0. What is allotted is what the log's row says, so that receipts name the grants that paid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from billing.core.credits import NO_GRANT
from billing.credits.terms import GrantTerms
from billing.events.usage_event import GrantShare, PaidLine, UsageEvent


@dataclasses.dataclass(kw_only=True, slots=True)
class GrantLeft:
    """What a grant has left by the ledger and the log."""

    grant_id: int
    credits: int
    terms: GrantTerms


def use(books: Mapping[str, Sequence[GrantLeft]], events: Iterable[UsageEvent]) -> None:
    """Take off what grants have paid for these events, which no sum of the log has yet."""
    for event in events:
        own = {grant.grant_id: grant for grant in books.get(event.client_id, ())}
        for line in event.lines:
            for share in line.grants:
                if share.grant in own:
                    own[share.grant].credits -= share.credits


def allot(event: UsageEvent, grants: Sequence[GrantLeft]) -> UsageEvent:
    """Return the event, paid by these grants (in burn order), which have so much less then."""
    return msgspec.structs.replace(event, lines=tuple(pay(line, grants, event.occurred_at) for line in event.lines))


def pay(line: PaidLine, grants: Iterable[GrantLeft], at_ms: int) -> PaidLine:
    """Return the line, paid by those grants (in burn order) that had not ended, which have so much less then."""
    shares, need = [], line.credits
    for grant in grants:
        usable = grant.terms.fits(line.sku) and not _ended(grant.terms, at_ms)
        part = min(need, grant.credits) if usable else 0
        if part > 0:
            grant.credits -= part
            need -= part
            shares.append(GrantShare(grant=grant.grant_id, credits=part))
    if need:
        shares.append(GrantShare(grant=NO_GRANT, credits=need))
    return msgspec.structs.replace(line, grants=tuple(shares))


def _ended(terms: GrantTerms, at_ms: int) -> bool:
    return 0 < terms.expires_ms <= at_ms or 0 < terms.voided_ms <= at_ms
