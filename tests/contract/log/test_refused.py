"""L10: what cannot be a row is kept with its reason, and delays nobody. Markers follow what came before them (L6)."""

from __future__ import annotations

import uuid

from msgspec import structs

from billing.fulfillment.delivery import Marker, Poison
from billing.fulfillment.log import BatchReport, UsageLog
from tests.contract.log.store import Store, assert_sums_exact
from tests.usage_events import QUEUE, delivered, paid_line, usage_event


def test_given_poison_and_an_unknown_client_when_written_then_they_are_kept_once_and_the_others_are_charged(
    store: Store, log: UsageLog
) -> None:
    store.add_clients("acme")
    stranger = delivered(usage_event("stranger"))
    poison = delivered(Poison(reason="body: \x00 is not JSON \ud800"), body=b"\x00\xff garbage")
    good = delivered(usage_event())
    whose = {"stranger": 1}
    report = log.write([poison, good, stranger])
    assert report == BatchReport(events=1, rows_inserted=1, dead_letters=2, refused_of=whose)
    assert log.write([poison, stranger, poison]) == BatchReport(dead_letters=3, refused_of=whose)
    assert len(store.letters()) == 2
    first, second = store.letters()
    assert (first.body, first.queue) == (b"\x00\xff garbage", QUEUE)
    assert "is not JSON" in first.reason
    assert second == (stranger.body, "client_id: 'stranger': is not a known client", QUEUE)
    assert [row.client_id for row in store.rows()] == ["acme"]
    assert_sums_exact(store)


def test_given_a_run_id_from_the_far_future_when_written_then_it_is_a_dead_letter_and_blocks_nothing(
    store: Store, log: UsageLog
) -> None:
    """It belongs to no time that will come soon; but a run id without a time, all bits ones, is an ordinary one."""
    store.add_clients("acme")
    future = usage_event(run_id=uuid.UUID("ffffffff-fffe-7abc-8abc-000000000001"))
    legacy = usage_event(run_id=uuid.UUID("ffffffff-ffff-7abc-8abc-000000000001"))
    report = log.write([delivered(future), delivered(legacy), delivered(usage_event())])
    assert report == BatchReport(events=2, rows_inserted=2, dead_letters=1)
    assert ["more than 31 days ahead" in letter.reason for letter in store.letters()] == [True]


def test_given_a_dry_run_of_an_unknown_client_when_written_then_it_is_counted_and_kept_nowhere(
    store: Store, log: UsageLog
) -> None:
    """A fleet that is tried out before its clients are added fills no table."""
    store.add_clients("acme")
    dry = structs.replace(usage_event(lines=[paid_line("page", 3, [])], epoch=0), mode="dry_run")
    stranger = structs.replace(usage_event("nobody", lines=[paid_line("page", 3, [])], epoch=0), mode="dry_run")
    assert log.write([delivered(dry), delivered(stranger)]) == BatchReport(events=1, rows_inserted=1, dropped=1)
    assert store.letters() == []
    assert [(row.client_id, row.mode, row.quantity, row.credits) for row in store.rows()] == [("acme", "dry_run", 3, 0)]
    assert_sums_exact(store)


def test_given_markers_when_written_then_they_are_committed_once_with_what_came_before_them(
    store: Store, log: UsageLog
) -> None:
    store.add_clients("acme")
    marker = Marker(token=uuid.uuid4(), shard=3)
    batch = [delivered(usage_event()), delivered(marker), delivered(marker)]
    assert log.write(batch) == BatchReport(events=1, rows_inserted=1, markers=2)
    alone = Marker(token=uuid.uuid4(), shard=4)
    assert log.write([delivered(marker), delivered(alone)]) == BatchReport(markers=2)
    assert dict(store.markers()) == {marker.token: 3, alone.token: 4}
    assert len(store.rows()) == 1
