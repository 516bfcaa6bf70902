"""What the fleet's tasks hold at most, and that their prices, bounds and names fit together."""

from __future__ import annotations

import signal
from pathlib import Path
from types import FrameType

import pytest

from billing.core.identifiers import check_sku
from billing.embedded.demo import workload
from worker_tasks import corpus, pages, scanning
from worker_tasks.capture import TRANSFER_UNIT_BYTES, capture_page, transfer_units
from worker_tasks.errors import InvalidArgument
from worker_tasks.price_list import PRICE_LIST
from worker_tasks.search import deep_search, premium_search


@pytest.mark.parametrize(
    ("size", "units"), [(0, 0), (1, 1), (TRANSFER_UNIT_BYTES, 1), (TRANSFER_UNIT_BYTES + 1, 2), (1_024_000, 10)]
)
def test_given_a_page_when_its_transfer_is_counted_then_started_units_count(size: int, units: int) -> None:
    assert transfer_units(size) == units


def test_given_a_capture_when_it_is_held_for_then_the_largest_page_is_covered() -> None:
    """L1: what a run may use at most is held before it starts."""
    held = capture_page.definition.held_at_most(("acme", "http://h/"), {})
    assert held == {"page-capture": 1, "page-transfer-100kib": transfer_units(pages.PAGE_BYTES_MAX)}


def test_given_a_deep_search_when_it_is_held_for_then_every_file_that_it_may_read_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L1, for each way in which the glob may be given."""
    for name in ("a.py", "b.py", "c.txt"):
        (tmp_path / name).touch()
    monkeypatch.setenv(corpus.VARIABLE, str(tmp_path))
    definition = deep_search.definition
    assert definition.held_at_most(("acme", "x"), {}) == {"corpus-file-scan": 2}
    assert definition.held_at_most(("acme", "x", "*.txt"), {"matches_max": 5}) == {"corpus-file-scan": 1}
    assert definition.held_at_most((), {"client_id": "acme", "pattern": "x", "path_glob": "*"}) == {
        "corpus-file-scan": 3
    }


def test_given_a_premium_search_when_it_is_held_for_then_it_is_one() -> None:
    assert premium_search.definition.held_at_most(("acme", "sort a list"), {}) == {"premium-search": 1}


def test_given_a_question_when_searched_then_definitions_of_the_corpus_answer_best_first() -> None:
    found = premium_search.run("acme", "parse command line arguments")
    assert len(found) == 10
    assert [answer["score"] for answer in found] == sorted((answer["score"] for answer in found), reverse=True)
    assert {"file", "line", "name", "summary", "score"} == set(found[0])


@pytest.mark.parametrize("query", ["", "?!", "x" * 201, None])
def test_given_a_question_without_words_when_searched_then_it_is_refused_by_name(query: object) -> None:
    with pytest.raises(InvalidArgument, match=r"^query: "):
        premium_search.run("acme", query)


def test_given_the_price_list_when_read_then_every_sku_of_the_tasks_is_in_it() -> None:
    listed = {check_sku(price.sku) for price in PRICE_LIST}
    assert listed == {"page-capture", "page-transfer-100kib", "corpus-file-scan", "premium-search"}
    assert all(price.credits_per_unit > 0 and price.unit for price in PRICE_LIST)


def test_given_the_demo_when_it_names_a_task_then_the_fleet_has_it() -> None:
    named = (workload.CAPTURE, workload.DEEP_SEARCH, workload.PREMIUM_SEARCH)
    assert named == (capture_page.name, deep_search.name, premium_search.name)


def test_given_a_pattern_that_never_ends_when_the_time_limit_strikes_then_the_scan_ends() -> None:
    """L9: Celery's soft time limit is a signal; a match that goes on for ever lets it through."""

    class TimeUpError(Exception):
        pass

    def strike(_number: int, _frame: FrameType | None) -> None:
        raise TimeUpError

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.2)
    try:
        with pytest.raises(TimeUpError):
            scanning.scan([("a", "a" * 60 + "b")], scanning.compile_pattern("(a+)+$"), 1)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
