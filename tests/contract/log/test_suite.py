"""The suite finds what it is there to find: a log that breaks one law, in one way, fails the test of that law."""

from __future__ import annotations

import inspect
import uuid
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import pytest

from billing.events.usage_event import UsageEvent
from billing.fulfillment import verdicts
from billing.fulfillment.delivery import Delivered
from billing.fulfillment.log import BatchReport, LogUnready, Unwritable
from billing.fulfillment.verdicts import Sorting
from tests.contract.log import test_breaks, test_once, test_refused
from tests.contract.log.plain import Books, PlainLog, PlainStore
from tests.contract.log.store import rows_of


class CountsDuplicatesOfABatch(PlainLog):
    """Does not look for duplicates inside a batch."""

    def new(self, books: Books, sorting: Sorting) -> list[UsageEvent]:
        """Return all that the history has not."""
        return [event for _, event in sorting.events if event.run_id not in books.history]


class Forgets(PlainLog):
    """Knows the last 500 runs: a window."""

    def new(self, books: Books, sorting: Sorting) -> list[UsageEvent]:
        """Return what is not among them."""
        known = list(books.history)[-500:]
        return [event for run_id, event in verdicts.first_of_each_run(sorting).items() if run_id not in known]


class MixesSettlements(PlainLog):
    """Looks at each line alone, so that another settlement adds the lines that the first had not."""

    def transact(self, books: Books, batch: Sequence[Delivered]) -> BatchReport:
        """Add lines that are not there."""
        report = super().transact(books, batch)
        for message in batch:
            if isinstance(message.decoded, UsageEvent) and message.decoded.run_id in books.history:
                there = books.history[message.decoded.run_id]
                there += [row for row in rows_of(message.decoded) if row.line >= len(there)]
        return report


class TakesTheLast(PlainLog):
    """Of two settlements in one batch it keeps the later one."""

    def new(self, books: Books, sorting: Sorting) -> list[UsageEvent]:
        """Return the last of each run."""
        last = {event.run_id: event for _, event in sorting.events}
        return [event for run_id, event in last.items() if run_id not in books.history]


class AddsWhatCame(PlainLog):
    """Adds to the sums for what came, not for what was inserted."""

    def transact(self, books: Books, batch: Sequence[Delivered]) -> BatchReport:
        """Add the duplicates as well."""
        old = [m.decoded for m in batch if isinstance(m.decoded, UsageEvent) and m.decoded.run_id in books.history]
        self.add(books, old)
        return super().transact(books, batch)


class LeavesHalf(PlainLog):
    """Writes in place: what came before a refused value stays."""

    def begin(self) -> Books:
        """Return the books themselves."""
        return self.store.books


class CountsByWritingTime(PlainLog):
    """Rolls up by another hour than that of the use."""

    def add(self, books: Books, events: Iterable[UsageEvent]) -> None:
        """Put everything into one hour."""
        super().add(books, events)
        books.rollups = {(client, sku, 0): sums for (client, sku, _), sums in books.rollups.items()}


class LosesLetters(PlainLog):
    """Drops what it refuses."""

    def transact(self, books: Books, batch: Sequence[Delivered]) -> BatchReport:
        """Keep no letter."""
        report = super().transact(books, batch)
        books.letters.clear()
        return report


class LosesMarkers(PlainLog):
    """Keeps a marker only when the batch has a new event."""

    def transact(self, books: Books, batch: Sequence[Delivered]) -> BatchReport:
        """Drop them otherwise."""
        before = dict(books.markers)
        report = super().transact(books, batch)
        books.markers = books.markers if report.events else before
        return report


class BlamesNobody(PlainLog):
    """Says that the batch must wait also where a value is refused, so that one message delays all others."""

    def write(self, batch: Sequence[Delivered]) -> BatchReport:
        """Turn every error into one."""
        try:
            return super().write(batch)
        except Unwritable as error:
            raise LogUnready(str(error)) from error


class KnowsItsOwn(PlainLog):
    """Finds the duplicates of what it wrote itself, not those of a writer beside it."""

    def __init__(self, store: PlainStore) -> None:
        super().__init__(store)
        self.written: set[uuid.UUID] = set()

    def new(self, books: Books, sorting: Sorting) -> list[UsageEvent]:
        """Return what this log has not written."""
        del books
        new = [event for run_id, event in verdicts.first_of_each_run(sorting).items() if run_id not in self.written]
        self.written |= {event.run_id for event in new}
        return new


FAULTS: list[tuple[type[PlainLog], Callable[..., None]]] = [
    (
        CountsDuplicatesOfABatch,
        test_once.test_given_duplicates_inside_a_batch_when_written_then_each_run_counts_once,
    ),
    (
        Forgets,
        test_once.test_given_a_run_of_any_age_when_it_is_delivered_again_among_thousands_since_then_it_is_one_row,
    ),
    (
        MixesSettlements,
        test_once.test_given_two_settlements_of_one_run_when_written_then_the_first_stands_whole_and_the_other_adds_nothing,
    ),
    (
        TakesTheLast,
        test_once.test_given_two_settlements_of_one_run_when_written_then_the_first_stands_whole_and_the_other_adds_nothing,
    ),
    (
        AddsWhatCame,
        test_once.test_given_a_committed_batch_when_it_is_redelivered_among_new_events_then_only_those_are_added,
    ),
    (
        KnowsItsOwn,
        test_once.test_given_four_writers_with_overlapping_shuffled_batches_when_they_write_at_once_then_every_run_counts_once,
    ),
    (CountsByWritingTime, test_once.test_given_an_event_at_the_end_of_an_hour_when_written_then_it_counts_in_that_hour),
    (
        LosesLetters,
        test_refused.test_given_poison_and_an_unknown_client_when_written_then_they_are_kept_once_and_the_others_are_charged,
    ),
    (
        LosesMarkers,
        test_refused.test_given_markers_when_written_then_they_are_committed_once_with_what_came_before_them,
    ),
    (
        LeavesHalf,
        test_breaks.test_given_a_value_that_is_refused_when_written_then_nothing_is_done_and_the_message_can_be_found,
    ),
    (
        BlamesNobody,
        test_breaks.test_given_a_value_that_is_refused_when_written_then_nothing_is_done_and_the_message_can_be_found,
    ),
]


@pytest.mark.parametrize(("kind", "law"), FAULTS, ids=[kind.__name__ for kind, _ in FAULTS])
def test_given_a_log_that_breaks_a_law_then_the_test_of_that_law_fails(
    kind: type[PlainLog], law: Callable[..., None]
) -> None:
    values = [mark.args for mark in getattr(law, "pytestmark", ()) if mark.name == "parametrize"]
    arguments = [{values[0][0]: value} for value in values[0][1]] if values else [{}]
    assert any(fails(kind, law, given) for given in arguments)
    assert not any(fails(PlainLog, law, given) for given in arguments)


def fails(kind: type[PlainLog], law: Callable[..., None], given: dict[str, Any]) -> bool:
    """Return whether such a log fails a test of the suite."""
    store = PlainStore(kind)
    fixtures = {"store": store} | ({"log": store.log()} if "log" in inspect.signature(law).parameters else {})
    try:
        law(**fixtures, **given)
    except (AssertionError, LogUnready, pytest.fail.Exception):
        return True
    return False
