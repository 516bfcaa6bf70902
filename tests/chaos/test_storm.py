"""A short storm over a whole fleet keeps every law; its plan and its book are what they say.

`make chaos` runs ten minutes with every kind of fault there is, and a seed of its own.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import psycopg
import pytest

from billing.embedded.rabbitmq import RabbitMQ
from tests.chaos.books import Charge, Work, ok
from tests.chaos.storm import laws
from tests.chaos.storm import plan as planning
from tests.chaos.storm.book import REFUSED, Book, Row
from tests.chaos.storm.load import Size
from tests.chaos.storm.plan import KINDS, TOGETHER, Injection, plan
from tests.chaos.storm.run import Storm, run
from tests.chaos.storm.snapshots import Snapshots
from tests.fleet.tasks import SKU
from tests.waiting import wait_until

#: Its plan has a loss of Redis, deaths of workers and of a consumer, and connections that are gone or silent.
SEED: Final = 2_377
LEASE_MS: Final = 4_500
#: What the suite has time for: each way in which a process, a server or a connection fails, once.
SHORT: Final = (
    "worker killed",
    "worker's child killed",
    "worker stopped",
    "consumer killed",
    "Redis killed, its tail lost",
    "Redis bucket lost",
    "PostgreSQL restarted at once",
    "RabbitMQ out of memory",
    "Stripe fails",
    "events published again",
    "worker-Redis connections silent",
    "consumer-PostgreSQL connections half-open",
)


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_a_short_storm_breaks_no_law(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    """Given load, when a seeded handful of faults strikes, then all that was submitted is charged as it must be."""
    del rabbitmq  # skips where there is none: the storm has one of its own
    tmp_path.chmod(0o711)
    size = Size(clients=60, short=20, rate=25.0, submitters=2)
    storm = Storm(seed=SEED, seconds=12.0, size=size, workers=2, children=1, kinds=SHORT)
    report = run(storm, tmp_path, print)
    print(report.markdown())  # noqa: T201
    assert report.ok, [violation for law in report.laws for violation in law.violations]
    assert report.errors == []
    assert sum(report.faults.values()) >= 4, report.faults
    assert report.counts["succeeded"] > 50, report.counts


@pytest.mark.parametrize("seed", range(6))
def test_a_plan_follows_from_its_seed_and_keeps_its_bounds(seed: int) -> None:
    """L9: at most so many faults at once, never two of one server, and no limit that docs/chaos.md states."""
    found = plan(seed, 600.0)
    assert found == plan(seed, 600.0) != plan(seed + 1, 600.0)
    assert {injection.kind.name for injection in found} == KINDS.keys()
    for injection in found:
        lasting = [other for other in found if other.at <= injection.at < other.end]
        assert len(lasting) <= TOGETHER
    for earlier, later in itertools.combinations(found, 2):
        if earlier.kind.of == later.kind.of:
            assert earlier.end < later.at
        if earlier.kind.forgets and later.kind.loses:
            assert later.at - earlier.end >= planning.ALONE_BEFORE
        if earlier.kind.loses and later.kind.forgets:
            assert later.at - earlier.end >= planning.ALONE_BEHIND


def test_a_plan_of_some_kinds_has_no_other() -> None:
    found: list[Injection] = plan(1, 60.0, ["beat killed", "consumer stopped"])
    assert {injection.kind.name for injection in found} == {"beat killed", "consumer stopped"}


def _book() -> tuple[Book, list[Row]]:
    """Return a book of two tasks that succeeded and one that was refused, and the rows that are right."""
    book = Book(["rich"], ["short"])
    answers = {"one": ("rich", "SUCCESS"), "two": ("short", "SUCCESS"), "three": ("short", REFUSED)}
    for task_id, (client_id, _) in answers.items():
        book.submitting(task_id, ok(client_id))
        book.submitted(task_id)
    book.granted_before(["rich"], 1_000)
    book.granted_before(["short"], 10)
    book.answers = {task_id: answer for task_id, (_, answer) in answers.items()}
    return book, [_row("one", "rich"), _row("two", "short")]


def _row(task_id: str, client_id: str, credits_: int = 10, *, at_ms: int = 5_000) -> Row:
    charge = Charge(client_id=client_id, correlation_id=task_id, sku=SKU, quantity=1, credits=credits_)
    return Row(run_id=f"run-{task_id}", line=0, settlement_id="first", charge=charge, late=False, occurred_ms=at_ms)


def _violations(book: Book, rows: list[Row], owed: Mapping[str, int] | None = None) -> list[str]:
    of_book = (book.charge(rows), book.failures(), book.states(rows), book.isolation(), book.lost_work())
    of_all = (*of_book, laws.ceiling(book, rows, owed or {}), laws.late(book, rows, LEASE_MS))
    return [law.law for law in of_all if law.violations]


def test_the_book_finds_nothing_where_nothing_is_wrong() -> None:
    assert _violations(*_book()) == []


def test_the_book_finds_what_is_lost() -> None:
    """L3: a success without a row."""
    book, rows = _book()
    assert _violations(book, rows[:1]) == ["L3 one charge"]


def test_the_book_finds_what_is_charged_twice() -> None:
    """L3, L4: another run, or another settlement, of the same task."""
    book, rows = _book()
    again = dataclasses.replace(rows[0], run_id="another", settlement_id="second")
    assert _violations(book, [*rows, again]) == ["L3 one charge", "L4 states"]


def test_the_book_finds_a_wrong_price_and_a_charge_of_another_client() -> None:
    book, rows = _book()
    assert _violations(book, [_row("one", "rich", 11), rows[1]]) == ["L3 one charge"]
    assert _violations(book, [_row("one", "short", 10), rows[1]]) == ["L3 one charge", "L1 ceiling"]


def test_the_book_finds_a_success_that_only_a_witness_saw_and_that_is_lost() -> None:
    """L3: its stored answer was overwritten, or never got there; the work was done all the same."""
    book, rows = _book()
    book.witnessed = {"one", "three", "of somebody else"}
    assert _violations(book, rows) == ["L3 one charge"]
    (lost,) = book.charge(rows).violations
    assert lost.startswith("three: ")


def test_the_book_finds_what_was_admitted_beyond_the_grants_unless_it_came_late() -> None:
    """L1: a charge that had no hold says so, and no other may exceed what was granted."""
    book, rows = _book()
    book.answers = {**book.answers, "three": "SUCCESS"}
    book.begun, book.losses = {"three": [4_900]}, [(4_000, 6_000)]
    third = _row("three", "short")
    assert _violations(book, [*rows, third]) == ["L1 ceiling"]
    assert _violations(book, [*rows, dataclasses.replace(third, late=True)]) == []


def test_the_book_finds_what_was_admitted_before_the_grant_that_pays_for_it() -> None:
    """L1: a grant that comes later pays for nothing that was charged under a hold before it was begun."""
    book, rows = _book()
    book.answers = {**book.answers, "three": "SUCCESS"}
    book.granting("short", 10, "later", 7_000)
    book.granting("short", 10, "later", 9_000)
    for at_ms, found in ((6_999, ["L1 ceiling"]), (7_000, [])):
        assert _violations(book, [_row("three", "short", at_ms=at_ms), *rows]) == found


def test_the_book_finds_debt_that_no_late_work_has_made() -> None:
    """L1: what was admitted under a hold owes nothing."""
    book, rows = _book()
    book.begun = {"two": [0]}
    assert _violations(book, rows, {"short": 1}) == ["L1 ceiling"]
    late = [rows[0], dataclasses.replace(rows[1], late=True, occurred_ms=LEASE_MS)]
    assert _violations(book, late, {"short": 10}) == []
    assert _violations(book, late, {"short": 11}) == ["L1 ceiling"]


@pytest.mark.parametrize(
    ("begun", "losses", "found"),
    [
        ([4_000], [], ["L4 late"]),
        ([], [(0, 9_000)], ["L4 late"]),
        ([4_000], [(0, 1_999)], ["L4 late"]),
        ([4_000], [(5_001, 9_000)], ["L4 late"]),
        ([4_000], [(0, 2_000)], []),
        ([4_000], [(5_000, 5_000)], []),
        ([4_000, 4_100], [], []),
        ([5_000 - LEASE_MS], [], []),
    ],
)
def test_the_book_finds_late_work_whose_hold_nothing_took(
    begun: list[int], losses: list[tuple[int, int]], found: list[str]
) -> None:
    """L4: a run is late whose life met a loss of Redis, who outlived a lease, or who was delivered again."""
    book, rows = _book()
    book.begun, book.losses = {"one": begun} if begun else {}, losses
    assert _violations(book, [dataclasses.replace(rows[0], late=True), rows[1]]) == found


@pytest.mark.parametrize(
    ("task", "error", "found"),
    [
        ("fails", "ValueError", []),
        ("works", "ConnectionError", []),
        ("fails", "BusyLoadingError", []),
        ("works", "ValueError", ["L3 failures"]),
        ("ok", "KeyError", ["L3 failures"]),
        ("fails", "UnknownSku", ["L3 failures"]),
    ],
)
def test_the_book_finds_a_failure_that_no_fault_can_cause(task: str, error: str, found: list[str]) -> None:
    """L3: only one task fails by itself, and only so."""
    book, rows = _book()
    book.submitting("four", Work(client_id="rich", task=task))
    book.answers = {**book.answers, "four": error}
    assert _violations(book, rows) == found


@pytest.mark.parametrize(("begun", "found"), [((1_000, 2_000), []), ((1_000,), ["L3 failures"]), ((), ["L3 failures"])])
def test_only_what_was_delivered_again_is_cancelled_by_celery(begun: tuple[int, ...], found: list[str]) -> None:
    """L3: the worker that lost its connection says REVOKED, after another one's attempt has failed."""
    book, rows = _book()
    book.submitting("four", Work(client_id="rich", task="fails"))
    book.answers, book.begun = {**book.answers, "four": "REVOKED"}, {"four": begun}
    assert _violations(book, rows) == found


def test_the_book_finds_a_hold_that_outlives_the_last_task() -> None:
    """L5: at rest there is none, and there was none any more within the bound."""
    assert laws.orphans([], 67.0, 67.0, 1).violations == []
    assert len(laws.orphans([], 67.1, 67.0, 1).violations) == 1
    assert len(laws.orphans([], None, 67.0, 1).violations) == 1
    assert len(laws.orphans(["a hold"], 1.0, 67.0, 1).violations) == 1


def test_the_book_finds_a_row_that_was_there_once_and_is_not_any_more() -> None:
    """L7: each look while faults are injected counts, also where PostgreSQL was away between two."""
    answers: list[set[str] | psycopg.Error] = [{"first", "second"}, psycopg.OperationalError(), {"first", "third"}]
    looks = iter(answers)

    def read() -> set[str]:
        seen = next(looks, {"first"})
        if isinstance(seen, psycopg.Error):
            raise seen
        return seen

    with Snapshots(read, 0.001) as snapshots:
        wait_until(lambda: snapshots.looks >= 3, "three looks")
    assert laws.append_only(snapshots.seen, ["first", "second", "third", "fourth"], snapshots.looks).violations == []
    assert laws.append_only(snapshots.seen, ["first", "fourth"], snapshots.looks).violations == ["second", "third"]


def test_the_book_finds_a_charge_without_a_success_unless_somebody_saw_one() -> None:
    """L3: a refused task has no row; one that succeeded before a later delivery was refused has."""
    book, rows = _book()
    book.granting("short", 10, "more", 0)
    third = _row("three", "short")
    assert _violations(book, [*rows, third]) == ["L3 one charge"]
    book.witnessed = {"three"}
    assert _violations(book, [*rows, third]) == []


def test_the_book_finds_a_refusal_of_who_can_pay_and_work_without_an_end() -> None:
    """L10, L9."""
    book, rows = _book()
    for task_id, answer in (("four", REFUSED), ("five", "PENDING"), ("six", "RETRY")):
        book.submitting(task_id, Work(client_id="rich", task="ok", used={SKU: 1}))
        book.submitted(task_id)
        book.answers = {**book.answers, task_id: answer}
    assert _violations(book, rows) == ["L10 isolation", "L9 bounds"]
    assert len(book.lost_work().violations) == 2
