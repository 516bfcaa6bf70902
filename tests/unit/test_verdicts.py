"""The table of `verdicts.py`, row by row, without a database."""

from __future__ import annotations

import uuid

import pytest

from billing.core.ids import LEGACY_MILLISECONDS
from billing.fulfillment import verdicts
from billing.fulfillment.delivery import Marker, Poison
from billing.fulfillment.verdicts import KnownClient, Settled
from tests.usage_events import delivered, paid_line, usage_event

CLIENTS = {"acme": KnownClient(shard=7, epoch=5)}


SHARES = {3: 8, 0: 2}


@pytest.mark.parametrize(
    ("kind", "epoch", "rebuilds", "epochs", "taken", "returned"),
    [
        ("new", 5, [], {}, {}, 0),
        ("new", 4, [], {}, {"acme": SHARES}, 0),
        ("new", 0, [], {}, {"acme": SHARES}, 0),
        ("new", 6, [7], {"acme": 6}, {}, 0),
        ("same settlement", 5, [], {}, {}, 0),
        ("same settlement", 4, [], {}, {}, 0),
        ("same settlement", 6, [], {}, {}, 0),
        ("same settlement, in epoch 3", 5, [], {}, {}, 1),
        ("same settlement, in epoch 3", 4, [], {}, {}, 0),
        ("same settlement, in epoch 3", 6, [7], {"acme": 6}, {}, 0),
        ("other settlement", 5, [], {}, {}, 1),
        ("other settlement", 4, [], {}, {}, 0),
        ("other settlement", 0, [], {}, {}, 0),
        ("other settlement", 6, [7], {"acme": 6}, {}, 0),
    ],
)
def test_given_an_event_when_judged_then_the_table_answers(
    kind: str, epoch: int, rebuilds: list[int], epochs: dict[str, int], taken: dict[str, dict[int, int]], returned: int
) -> None:
    event = usage_event(lines=[paid_line("page", 1, [(3, 8), (0, 2)])], epoch=epoch)
    sorting = verdicts.sort([delivered(event), delivered(event)][: 1 if kind == "new" else 2])
    stored = {
        "same settlement": Settled(event.settlement_id, epoch),
        "same settlement, in epoch 3": Settled(event.settlement_id, 3),
        "other settlement": Settled("another", epoch),
    }
    before = {event.run_id: stored[kind]} if kind in stored else {}
    found = verdicts.consequences(sorting, CLIENTS, [] if before else [event], before)
    assert (list(found.rebuilds), found.epochs, found.taken) == (rebuilds, epochs, taken)
    assert found.returned == dict.fromkeys([(event.run_id, Settled(event.settlement_id, epoch))][:returned], event)


def test_given_a_return_when_its_shares_are_added_then_they_are_taken_off() -> None:
    grants = {3: 8}
    verdicts.add_shares(grants, usage_event(lines=[paid_line("page", 1, [(3, 8), (0, 2)])]), -1)
    assert grants == {3: 0, 0: -2}


def test_given_several_newer_epochs_when_judged_then_the_newest_is_kept() -> None:
    events = [usage_event(epoch=epoch) for epoch in (8, 9, 6)]
    sorting = verdicts.sort([delivered(event) for event in events])
    assert verdicts.consequences(sorting, CLIENTS, events, {}).epochs == {"acme": 9}


def test_given_a_batch_of_everything_when_sorted_then_each_kind_keeps_the_order_of_the_batch() -> None:
    events = [usage_event(), usage_event()]
    marker, poison = Marker(token=uuid.uuid4(), shard=1), delivered(Poison(reason="no JSON"))
    sorting = verdicts.sort([delivered(events[0]), poison, delivered(marker), delivered(events[1])])
    assert [event for _, event in sorting.events] == events
    assert sorting.markers == [marker]
    assert sorting.letters == [(poison, "no JSON")]


@pytest.mark.parametrize(
    ("client_id", "ahead_milliseconds", "reason"),
    [
        ("acme", -(10**12), None),
        ("acme", verdicts.AHEAD_MAX_MILLISECONDS, None),
        ("acme", verdicts.AHEAD_MAX_MILLISECONDS + 1, "more than 31 days ahead"),
        ("stranger", 0, "client_id: 'stranger': is not a known client"),
    ],
)
def test_given_what_no_partition_or_client_takes_when_refused_then_it_says_why(
    client_id: str, ahead_milliseconds: int, reason: str | None
) -> None:
    now = 1_790_000_000_000
    sorting = verdicts.sort([delivered(usage_event(client_id, at_milliseconds=now + ahead_milliseconds))])
    verdicts.refuse(sorting, CLIENTS, now)
    assert len(sorting.events) == (reason is None)
    assert [reason is not None and reason in letter for _, letter in sorting.letters] == [True] * (reason is not None)


def test_given_a_sender_without_the_library_when_refused_then_its_run_is_kept() -> None:
    sorting = verdicts.sort([delivered(usage_event(at_milliseconds=LEGACY_MILLISECONDS))])
    verdicts.refuse(sorting, CLIENTS, 1_790_000_000_000)
    assert len(sorting.events) == 1
