"""The caps on dead-lettering: refusals in a row, and their share of the last messages (L9)."""

from __future__ import annotations

import random

import pytest

from billing.core.settings import Settings
from billing.fulfillment.delivery import Delivered, Poison
from billing.fulfillment.refusals import Refusals
from tests.usage_events import usage_event

GOOD = Delivered(body=b"good", queue="q", decoded=usage_event())
BAD = Delivered(body=b"bad", queue="q", decoded=Poison(reason="bad"))
FORGED = Delivered(body=b"forged", queue="q", decoded=Poison(reason="forged", forged=True))


def refusals(*, run_max: int = 1_000_000, window: int = 1_000, percent_max: int = 100) -> Refusals:
    """Make a counter with caps that are out of the way unless they are given."""
    return Refusals(
        Settings(dead_letter_run_max=run_max, dead_letter_window=window, dead_letter_percent_max=percent_max)
    )


def stopped_after(counted: Refusals, batches: list[list[Delivered]]) -> int | None:
    """Return how many letters there were when it said to stop; None: it did not."""
    letters = 0
    for batch in batches:
        refused = batch.count(BAD)
        letters += refused
        if counted.note(batch, refused, {}) is not None:
            return letters
    return None


@pytest.mark.parametrize("percent", [20, 50, 100])
def test_given_a_share_beyond_the_cap_then_it_stops_after_a_bounded_number_of_letters(percent: int) -> None:
    """At most the cap's share of a window, and one batch."""
    chance = random.Random(percent)
    batches = [[BAD if chance.random() * 100 < percent else GOOD for _ in range(50)] for _ in range(1_000)]

    letters = stopped_after(refusals(percent_max=10), batches)

    assert letters is not None
    assert 100 < letters <= 150


@pytest.mark.parametrize("percent", [0.1, 1, 5])
def test_given_a_share_below_the_cap_then_it_never_stops(percent: float) -> None:
    chance = random.Random(7)
    batches = [[BAD if chance.random() * 100 < percent else GOOD for _ in range(50)] for _ in range(2_000)]

    assert stopped_after(refusals(percent_max=10), batches) is None


def test_given_few_events_then_their_share_does_not_count() -> None:
    """A handful of refusals among few events says nothing: the share is always that of a whole window."""
    assert stopped_after(refusals(percent_max=10), [[BAD]] * 100) is None
    assert stopped_after(refusals(percent_max=10), [[BAD]] * 101) == 101


def test_given_refusals_of_long_ago_then_they_no_longer_count() -> None:
    """What left the window is forgotten, batch by batch."""
    counted = refusals(percent_max=10)
    for _ in range(20):
        assert stopped_after(counted, [[BAD] * 100, *[[GOOD] * 300] * 3]) is None
    assert counted._messages < 1_000 + 300
    assert stopped_after(counted, [[BAD] * 100, [BAD] * 10]) == 110


def test_given_a_cap_of_all_then_only_a_run_stops_it() -> None:
    assert stopped_after(refusals(), [[BAD] * 500] * 20) is None
    assert stopped_after(refusals(run_max=1_200), [[BAD] * 500] * 20) == 1_500


def test_given_a_good_event_then_the_run_begins_anew() -> None:
    """The run goes on from the refusals behind the last good event of a batch."""
    counted = refusals(run_max=30)
    assert stopped_after(counted, [[BAD] * 20 + [GOOD] + [BAD] * 9, [BAD] * 20]) is None
    assert stopped_after(counted, [[BAD]]) == 1


def test_given_events_that_the_log_refused_then_a_batch_of_nothing_else_counts_as_a_run() -> None:
    """They are no poison when they come in; the log's own count says it."""
    counted = refusals(run_max=30)
    assert counted.note([GOOD] * 20, 20, {}) is None
    reason = counted.note([GOOD] * 20, 20, {})
    assert reason is not None
    assert reason.startswith("billing_dead_letter_run_max: 40 events in a row were refused (at most 30): ")
    assert "what is not written stays in its queue" in reason


@pytest.mark.parametrize("caps", [{"percent_max": 10}, {"run_max": 500}])
@pytest.mark.parametrize(("clients", "stops"), [(1, False), (2, False), (3, True), (50, True)])
def test_given_events_of_lost_clients_then_only_those_of_several_stop_it(
    caps: dict[str, int],
    clients: int,
    stops: bool,  # noqa: FBT001 - a parameter of the test
) -> None:
    """One client's refusals are half of what a cap allows at most, however many they are: others must not wait."""
    counted = refusals(**caps)
    each = {f"lost-{number}": 20 for number in range(clients)}
    batch = [GOOD] * sum(each.values())
    good = [] if "run_max" in caps else [GOOD]
    reasons = [counted.note(batch + good, len(batch), each) for _ in range(200)]
    assert any(reasons) == stops


def test_given_a_lost_client_beside_poison_then_the_poison_counts_whole() -> None:
    counted = refusals(percent_max=10)
    assert counted.note([GOOD] * 1_000, 1_000, {"lost": 1_000}) is None
    assert counted.note([GOOD] * 60, 60, {}) is not None


def test_given_forged_events_before_any_that_is_signed_then_they_count_as_any_others() -> None:
    """The keys may be wrong: everybody's events would go to the dead letters."""
    counted = refusals(run_max=30)
    assert counted.note([FORGED] * 29, 29, {}) is None
    assert counted.note([FORGED], 1, {}) is not None


@pytest.mark.parametrize("caps", [{"percent_max": 10}, {"run_max": 30}])
def test_given_one_signed_event_then_forged_ones_never_stop_it_and_others_do_as_ever(caps: dict[str, int]) -> None:
    """L10: whoever floods the queues must not stop those that sign; what is signed and refused counts whole."""
    counted = refusals(**caps)
    assert counted.note([FORGED] * 20 + [GOOD], 20, {}) is None
    assert not any(counted.note([FORGED] * 500, 500, {}) for _ in range(20))
    reasons = [counted.note([FORGED, BAD] * 20, 40, {}) for _ in range(20)]
    assert any(reasons)
