"""All or nothing: when a write raises, nothing of its batch is there, and the blame is put where it belongs."""

from __future__ import annotations

import uuid

import msgspec
import pytest

from billing.core.errors import Unreachable
from billing.events.usage_event import UsageEvent
from billing.fulfillment.delivery import Marker, Poison
from billing.fulfillment.log import BatchReport, LogUnready, Unwritable, UsageLog
from tests.contract.log.store import Store, assert_sums_exact
from tests.usage_events import delivered, usage_event


def assert_empty(store: Store) -> None:
    """Check that nothing was stored."""
    assert (store.rows(), store.rollups(), store.spent(), store.letters(), store.markers()) == ([], {}, {}, [], [])


def test_given_a_value_that_is_refused_when_written_then_nothing_is_done_and_the_message_can_be_found(
    store: Store, log: UsageLog
) -> None:
    """`Unwritable` for any batch that holds it, and for it alone; the same log writes all others at once."""
    store.add_clients("acme")
    refused = store.refused()
    assert refused
    for change in refused.values():
        bad: UsageEvent = msgspec.structs.replace(usage_event(), **change)
        broken = delivered(bad, body=b"as it came")
        before, after = [delivered(usage_event()) for _ in range(3)], [delivered(usage_event()) for _ in range(3)]
        others = [delivered(Poison(reason="is none")), delivered(Marker(token=uuid.uuid4(), shard=1))]
        for batch in ([*before, *others, broken, *after], [broken]):
            with pytest.raises(Unwritable, match=r"^usage_history: .+"):
                log.write(batch)
            assert_empty(store)
    good = [delivered(usage_event()) for _ in range(6)]
    assert log.write(good).rows_inserted == 6
    assert_sums_exact(store)


def test_given_a_store_that_is_not_ready_when_written_then_no_message_is_blamed_and_the_batch_can_wait(
    store: Store, log: UsageLog
) -> None:
    store.add_clients("acme")
    batch = [delivered(usage_event()), delivered(Poison(reason="is none"))]
    store.make_unready()
    with pytest.raises(LogUnready):
        log.write(batch)
    store.make_ready()
    assert_empty(store)
    assert log.write(batch) == BatchReport(events=1, rows_inserted=1, dead_letters=1)


def test_given_no_server_when_written_then_it_is_unreachable_and_no_password_is_said(store: Store) -> None:
    log = store.log_without_server()
    with pytest.raises(Unreachable) as caught:
        log.write([delivered(usage_event())])
    assert "secret" not in str(caught.value)
    log.close()


def test_given_a_connection_that_was_lost_when_written_then_the_second_try_succeeds(
    store: Store, log: UsageLog
) -> None:
    store.add_clients("acme")
    log.write([delivered(usage_event())])
    store.cut()
    batch = [delivered(usage_event())]
    with pytest.raises(Unreachable):
        log.write(batch)
    assert log.write(batch).rows_inserted == 1
    assert len(store.rows()) == 2


def test_given_an_empty_batch_when_written_then_nobody_is_asked(store: Store) -> None:
    log = store.log_without_server()
    assert log.write([]) == BatchReport()


def test_given_a_closed_log_when_written_then_it_connects_again_and_may_be_closed_twice(
    store: Store, log: UsageLog
) -> None:
    store.add_clients("acme")
    event = usage_event()
    log.close()
    assert log.write([delivered(event)]).events == 1
    log.close()
    log.close()
    assert log.write([delivered(event)]) == BatchReport(duplicates=1)
