"""What a run records adds up per SKU; outside a run, and beyond the bounds, recording raises (L9)."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from typing import Any, cast

import celery
import pytest
from hypothesis import given
from hypothesis import strategies as st

import billing
from billing import BillableTask
from billing.core.credits import CREDITS_MAX
from billing.core.errors import InvalidValue, UnknownSku
from billing.task.definition import LINES_MAX
from billing.task.usage import NotInARun, Recorder


@pytest.fixture
def app() -> Iterator[celery.Celery]:
    """Make an app that nothing is published with."""
    app = celery.Celery("recorder", broker="memory://", set_as_current=False)
    yield app
    app.close()


@given(st.lists(st.tuples(st.sampled_from([None, "page", "extra"]), st.integers(0, 10**9)), max_size=20))
def test_what_is_recorded_adds_up_per_sku(records: list[tuple[str | None, int]]) -> None:
    """Given any records, with and without a SKU, then each SKU has its sum, and no SKU means the task's own."""
    recorder = Recorder("page")
    for sku, quantity in records:
        recorder.record(quantity, sku=sku)

    expected: dict[str, int] = {}
    for sku, quantity in records:
        expected[sku or "page"] = expected.get(sku or "page", 0) + quantity
    assert recorder.quantities == expected


@pytest.mark.parametrize("quantity", [-1, 1.5, "1", True, None, CREDITS_MAX + 1])
def test_a_bad_quantity_is_refused_and_changes_nothing(quantity: int) -> None:
    """Given a quantity that breaks the rule, then it is refused by name and nothing is recorded."""
    recorder = Recorder("page")
    recorder.record(2)

    with pytest.raises(InvalidValue, match=r"^quantity: "):
        recorder.record(quantity)
    with pytest.raises(InvalidValue, match=r"^sku: "):
        recorder.record(1, sku="Bad SKU")

    assert recorder.quantities == {"page": 2}


def test_a_sum_past_the_largest_amount_is_refused_and_changes_nothing() -> None:
    """Given two quantities whose sum cannot be counted, then the second is refused and the first stays."""
    recorder = Recorder("page")
    recorder.record(CREDITS_MAX)

    with pytest.raises(InvalidValue):
        recorder.record(1)

    assert recorder.quantities == {"page": CREDITS_MAX}


def test_a_run_has_a_bounded_number_of_lines() -> None:
    """Given as many SKUs as a run may have, then one more is refused, and those that are there still add up (L9)."""
    recorder = Recorder("sku-0")
    for number in range(LINES_MAX):
        recorder.record(1, sku=f"sku-{number}")

    with pytest.raises(InvalidValue, match="at most"):
        recorder.record(1, sku="one-more")

    recorder.record(1)
    assert len(recorder.quantities) == LINES_MAX
    assert recorder.quantities["sku-0"] == 2


def test_each_record_is_staged_and_one_that_cannot_be_rated_is_taken_back() -> None:
    """Given a SKU without a price, when staging refuses it, then the record is gone and the run goes on."""
    recorder = Recorder("page")
    staged: list[dict[str, int]] = []

    def stage() -> None:
        if "free" in recorder.quantities:
            raise UnknownSku("free")
        staged.append(dict(recorder.quantities))

    recorder.staged_by(stage)
    recorder.record(1)
    with pytest.raises(UnknownSku):
        recorder.record(1, sku="free")
    recorder.record(2)

    assert staged == [{"page": 1}, {"page": 3}]
    assert recorder.quantities == {"page": 3}


def test_threads_of_one_run_record_one_after_the_other() -> None:
    """Given two threads that record at once, then no two are in the middle of it together, and nothing is lost."""
    recorder = Recorder("page")
    meet = threading.Barrier(2)
    met: list[int] = []

    def stage() -> None:
        with contextlib.suppress(threading.BrokenBarrierError):
            met.append(meet.wait(0.1))

    recorder.staged_by(stage)
    threads = [threading.Thread(target=recorder.record, args=(1,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert met == []
    assert recorder.quantities == {"page": 2}


def test_outside_a_run_both_ways_to_record_raise(app: celery.Celery) -> None:
    """Given no run, then `billing.usage.record` and `self.usage` raise, and say where they belong."""

    def body(client_id: str) -> None:
        """Do nothing."""

    task: Any = app.task(shared=False, name="page", base=BillableTask, sku="page")(body)
    app.finalize()

    with pytest.raises(NotInARun, match="outside a billed run"):
        billing.usage.record(1)
    with pytest.raises(NotInARun, match="outside a billed run"):
        task.usage.record(quantity=1)
    with pytest.raises(NotInARun):
        cast("Any", app.tasks["page"]).usage  # noqa: B018 - reading it raises


def test_in_a_task_that_is_not_billed_recording_raises(app: celery.Celery) -> None:
    """Given a plain task that is running, then there is no run to record for."""

    def body() -> None:
        billing.usage.record(1)

    task = app.task(shared=False, name="plain")(body)

    with pytest.raises(NotInARun):
        task.apply(throw=True)
