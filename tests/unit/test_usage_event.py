"""The event's two hands: what the worker encodes and the settle script completes is one valid event."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from billing.core.ids import run_id
from billing.events.direct import encode_direct
from billing.events.usage_event import (
    METER_ONLY,
    Draft,
    EventHead,
    Mode,
    UsageEvent,
    UsageLine,
    decode_draft,
    encode_draft,
    encode_fragment,
    encode_head,
)
from billing.fulfillment.decoder import decode

NOW = 1_790_000_000_000


@given(
    st.lists(st.integers(0, 2**40), min_size=1, max_size=5),
    st.text(st.characters(exclude_characters="\0", codec="utf-8")),
)
def test_given_head_and_fragments_when_completed_as_settle_does_then_it_is_the_event(
    amounts: list[int], task_id: str
) -> None:
    """L3: an event is written in the step that charges, from parts that were encoded before it."""
    identifier = run_id("acme", task_id, nesting=0, nonce="", at_milliseconds=NOW)
    head = EventHead(
        run_id=identifier,
        client_id="acme",
        correlation_id=task_id[:1000],
        root_id="r",
        task="t",
        attempt=2,
        submitted_at=None,
        price_version=4,
    )
    body = encode_head(head) + b',"settlement_id":"s","occurred_at":%d,"epoch":1,"late":true,"lines":[' % NOW
    body += b",".join(
        encode_fragment(UsageLine(sku="page", quantity=1, credits=amount))
        + (b',"grants":[{"grant":7,"credits":%d}]}' % amount if amount else b',"grants":[]}')
        for amount in amounts
    )
    event = decode(body + b"]}")
    assert isinstance(event, UsageEvent)
    assert (event.run_id, event.correlation_id, event.late) == (identifier, task_id[:1000], True)
    assert [line.credits for line in event.lines] == amounts


@given(st.lists(st.builds(UsageLine, sku=st.just("page"), quantity=st.integers(0, 9), credits=st.integers(0, 9))))
def test_given_a_draft_when_stored_with_a_hold_then_it_comes_back(lines: list[UsageLine]) -> None:
    """L5: the reaper finishes a dead worker's run from its draft."""
    draft = Draft(priced_at=NOW, lines=tuple(lines))
    assert decode_draft(encode_draft(draft)) == draft


@pytest.mark.parametrize(("mode", "late"), [(None, True), (METER_ONLY, False)])
def test_a_direct_event_says_that_no_bucket_has_paid_it(mode: Mode | None, late: bool) -> None:  # noqa: FBT001
    """L6: its epoch is none that a bucket has, all of it is debt, and it is late where it should have had a hold."""
    head = EventHead(
        run_id=run_id("acme", "t", nesting=0, nonce="", at_milliseconds=NOW),
        client_id="acme",
        correlation_id="t",
        root_id="t",
        task="t",
        attempt=1,
        submitted_at=None,
        price_version=1,
    )
    lines = [UsageLine(sku="page", quantity=2, credits=10), UsageLine(sku="free", quantity=1, credits=0)]
    event = decode(encode_direct(head, lines, settlement_id="s", occurred_at=NOW, mode=mode))
    assert isinstance(event, UsageEvent)
    assert (event.epoch, event.late, event.mode, event.settlement_id) == (0, late, mode, "s")
    assert [[(share.grant, share.credits) for share in line.grants] for line in event.lines] == [[(0, 10)], []]
