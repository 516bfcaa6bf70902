"""Who pays a direct event: pure, in burn order, never more than is left, and nothing is lost (L2)."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from billing.credits.terms import GrantTerms
from billing.events.usage_event import UsageEvent
from billing.fulfillment import allotment
from billing.fulfillment.allotment import GrantLeft
from tests.usage_events import paid_line, usage_event

AT_MS = 1_000


def direct(*lines: tuple[str, int]) -> UsageEvent:
    """Return a direct event with lines of (SKU, credits)."""
    return usage_event(
        lines=[paid_line(sku, 1, [(0, credits_)]) for sku, credits_ in lines], epoch=0, occurred_at=AT_MS
    )


def left(grant_id: int, credits_: int, *skus: str, expires_ms: int = 0, voided_ms: int = 0) -> GrantLeft:
    """Return what a grant has left."""
    return GrantLeft(
        grant_id=grant_id,
        credits=credits_,
        terms=GrantTerms(skus=skus, expires_ms=expires_ms, voided_ms=voided_ms),
    )


def paid(event: UsageEvent) -> list[dict[int, int]]:
    """Return who pays each line."""
    return [{share.grant: share.credits for share in line.grants} for line in event.lines]


def test_each_line_is_paid_in_burn_order_by_what_fits_its_sku_and_the_rest_is_debt() -> None:
    grants = [left(1, 10, "image"), left(2, 15), left(3, 100, "page")]
    assert paid(allotment.allot(direct(("page", 20), ("image", 30), ("kib", 0)), grants)) == [
        {2: 15, 3: 5},
        {1: 10, 0: 20},
        {},
    ]
    assert [grant.credits for grant in grants] == [0, 0, 95]


def test_a_client_with_restricted_grants_alone_is_paid_by_them_where_the_sku_fits() -> None:
    assert paid(allotment.allot(direct(("page", 20)), [left(1, 50, "page")])) == [{1: 20}]
    assert paid(allotment.allot(direct(("kib", 20)), [left(1, 50, "page")])) == [{0: 20}]


def test_what_ended_when_the_work_finished_pays_nothing_and_what_ended_since_does() -> None:
    grants = [left(1, 5, expires_ms=AT_MS), left(2, 5, voided_ms=AT_MS), left(3, 5, expires_ms=AT_MS + 1)]
    grants.append(left(4, 5, voided_ms=AT_MS + 1))
    assert paid(allotment.allot(direct(("page", 20)), grants)) == [{3: 5, 4: 5, 0: 10}]


def test_what_other_events_of_the_batch_have_used_is_not_there_any_more() -> None:
    books = {"acme": [left(1, 20), left(2, 10)]}
    allotment.use(books, [usage_event(lines=[paid_line("page", 1, [(1, 15), (9, 4), (0, 3)])]), usage_event("bolt")])
    assert paid(allotment.allot(direct(("page", 12)), books["acme"])) == [{1: 5, 2: 7}]


@given(
    credits_=st.lists(st.tuples(st.sampled_from(["page", "image"]), st.integers(0, 300)), min_size=1, max_size=4),
    grants=st.lists(
        st.builds(
            left,
            st.integers(1, 9),
            st.integers(-20, 200),
            expires_ms=st.sampled_from([0, AT_MS - 1, AT_MS, AT_MS + 1]),
            voided_ms=st.sampled_from([0, 0, AT_MS, AT_MS + 1]),
        ),
        max_size=6,
        unique_by=lambda grant: grant.grant_id,
    ),
    skus=st.lists(st.sampled_from([(), ("page",), ("image",)]), min_size=6, max_size=6),
)
def test_whatever_is_left_every_line_is_paid_in_full_and_no_grant_pays_more_than_it_has(
    credits_: list[tuple[str, int]], grants: list[GrantLeft], skus: list[tuple[str, ...]]
) -> None:
    for grant, own in zip(grants, skus, strict=False):
        grant.terms = GrantTerms(skus=own, expires_ms=grant.terms.expires_ms, voided_ms=grant.terms.voided_ms)
    before = {grant.grant_id: (grant.credits, grant.terms) for grant in grants}
    event = direct(*credits_)
    told = allotment.allot(event, grants)
    assert [(line.sku, line.credits) for line in told.lines] == credits_
    assert msgspec.structs.replace(told, lines=event.lines) == event
    used = dict.fromkeys(before, 0)
    for line, shares in zip(told.lines, paid(told), strict=True):
        assert sum(shares.values()) == line.credits
        assert min(shares.values(), default=1) > 0
        for grant_id in shares.keys() - {0}:
            used[grant_id] += shares[grant_id]
            terms = before[grant_id][1]
            assert terms.fits(line.sku)
            assert not 0 < terms.expires_ms <= AT_MS
            assert not 0 < terms.voided_ms <= AT_MS
    for grant in grants:
        credits_left = before[grant.grant_id][0]
        assert used[grant.grant_id] <= max(0, credits_left)
        assert grant.credits == credits_left - used[grant.grant_id]
        # Debt is a last resort: what could have paid the last line is used up then.
        if 0 in paid(told)[-1] and grant.terms.fits(told.lines[-1].sku) and grant.credits > 0:
            assert 0 < grant.terms.expires_ms <= AT_MS or 0 < grant.terms.voided_ms <= AT_MS
