"""A worker's price book is never older than its bound, and PostgreSQL is not asked more than needed (L9)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime

import pytest

from billing.catalog.price_book import PriceBook
from billing.catalog.price_cache import LOAD_SECONDS_MAX, LOADS_MAX, PriceCache
from billing.core.errors import Unreachable
from tests.waiting import wait_until


class Time:
    """A clock that a test moves."""

    seconds = 1_000.0

    def now(self) -> datetime:
        """Return the instant."""
        return datetime.fromtimestamp(self.seconds, UTC)

    def monotonic(self) -> float:
        """Return the seconds."""
        return self.seconds


class Source:
    """Where the books come from; it can be away, and a load can take time."""

    def __init__(self, time: Time) -> None:
        self.time, self.loads, self.away, self.load_seconds = time, 0, False, 0.0

    def load(self) -> PriceBook:
        """Load a book."""
        self.loads += 1
        self.time.seconds += self.load_seconds
        if self.away:
            message = "billing_database_url: 'nowhere': the server does not answer"
            raise Unreachable(message)
        return PriceBook([])


@pytest.fixture
def time() -> Time:
    """Make a clock."""
    return Time()


@pytest.fixture
def source(time: Time) -> Source:
    """Make a source."""
    return Source(time)


@pytest.fixture
def cache(time: Time, source: Source) -> PriceCache:
    """Make a cache whose copies are at most 10 s old."""
    return PriceCache(source.load, refresh_seconds=5.0, age_max_seconds=10.0, wait_seconds=120.0, clock=time)


def test_given_a_young_copy_when_asked_then_it_is_served_and_renewed_when_that_is_due(
    cache: PriceCache, source: Source, time: Time
) -> None:
    first = cache.get()
    time.seconds += 4.9
    assert cache.get() is first
    time.seconds += 0.1
    wait_until(lambda: cache.get() is not first, "the copy was renewed")
    assert source.loads == 2


def test_given_postgresql_away_when_asked_then_the_copy_serves_to_its_age_and_not_a_moment_longer(
    cache: PriceCache, source: Source, time: Time
) -> None:
    first = cache.get()
    source.away = True
    time.seconds += 9.9
    assert cache.get() is first
    time.seconds += 0.1
    with pytest.raises(Unreachable, match=r"^billing_database_url: "):
        cache.get()
    source.away = False
    time.seconds += 1.0
    assert cache.get() is not first


def test_given_a_load_that_takes_long_when_asked_again_then_the_copy_is_as_old_as_the_beginning_of_its_load(
    cache: PriceCache, source: Source
) -> None:
    source.load_seconds = 6.0
    first = cache.get()
    wait_until(lambda: cache.get() is not first, "the copy was renewed")


def test_given_postgresql_away_when_asked_a_thousand_times_then_it_is_asked_once_a_second(
    cache: PriceCache, source: Source, time: Time
) -> None:
    source.away = True
    for _ in range(1_000):
        with pytest.raises(Unreachable):
            cache.get()
    assert source.loads == 1
    time.seconds += 1.0
    with pytest.raises(Unreachable):
        cache.get()
    assert source.loads == 2


class Hanging:
    """A source whose loads hang from the second on, until they are let go."""

    def __init__(self) -> None:
        self.loads, self.let_go = 0, threading.Event()
        self._lock = threading.Lock()

    def load(self) -> PriceBook:
        """Load a book; the first at once."""
        with self._lock:
            self.loads += 1
            first = self.loads == 1
        assert first or self.let_go.wait(120)
        return PriceBook([])


@pytest.fixture
def hanging() -> Iterator[Hanging]:
    """Make a source that hangs, and let its threads go afterwards."""
    source = Hanging()
    yield source
    source.let_go.set()


def test_given_a_renewal_that_hangs_when_asked_then_the_copy_serves_at_once_and_one_thread_hangs(
    hanging: Hanging, time: Time
) -> None:
    """L10: PostgreSQL that hangs delays nobody while a young enough copy exists."""
    cache = PriceCache(hanging.load, refresh_seconds=5.0, age_max_seconds=10.0, wait_seconds=60.0, clock=time)
    first = cache.get()
    time.seconds += 6.0
    with ThreadPoolExecutor(8) as pool:
        assert all(book is first for book in pool.map(lambda _: cache.get(), range(100)))
    wait_until(lambda: hanging.loads == 2, "the renewal began")
    hanging.let_go.set()
    wait_until(lambda: cache.get() is not first, "the copy was renewed")
    assert hanging.loads == 2


def test_given_a_load_that_hangs_when_a_renewed_book_is_wanted_then_the_wait_is_bounded_and_the_copy_serves(
    hanging: Hanging, time: Time
) -> None:
    """L9: a caller who needs a newer book waits `wait_seconds`; past the copy's age it is refused."""
    cache = PriceCache(hanging.load, refresh_seconds=5.0, age_max_seconds=10.0, wait_seconds=0.05, clock=time)
    first = cache.get()
    time.seconds += 2.0
    assert cache.renewed() is first
    time.seconds += 8.0
    for _ in range(1_000):  # the first of them waits
        with pytest.raises(Unreachable, match=r"has not answered within 0.05 s"):
            cache.get()
    assert hanging.loads == 2


def test_given_a_load_that_hangs_for_ever_when_its_bound_is_over_then_another_begins(
    hanging: Hanging, time: Time
) -> None:
    """L9: a stuck load is given up; what it brings in the end never replaces a younger book."""
    cache = PriceCache(hanging.load, refresh_seconds=5.0, age_max_seconds=1_000.0, wait_seconds=0.05, clock=time)
    first = cache.get()
    time.seconds += 6.0
    assert cache.get() is first
    wait_until(lambda: hanging.loads == 2, "a renewal hangs")
    time.seconds += LOAD_SECONDS_MAX - 0.1
    assert cache.get() is first
    assert hanging.loads == 2
    time.seconds += 0.1
    assert cache.get() is first
    wait_until(lambda: hanging.loads == 3, "another renewal began")


def test_given_loads_that_all_hang_then_their_threads_and_connections_are_bounded(hanging: Hanging, time: Time) -> None:
    """L9: a server that takes connections and never answers costs a process no more of them than is written."""
    cache = PriceCache(hanging.load, refresh_seconds=5.0, age_max_seconds=1_000.0, wait_seconds=0.05, clock=time)
    first = cache.get()

    def hangs(loads: int) -> None:
        wait_until(lambda: hanging.loads == loads, "another hangs")

    for _ in range(LOADS_MAX + 10):
        begun, time.seconds = hanging.loads, time.seconds + LOAD_SECONDS_MAX
        assert cache.get() is first
        if begun <= LOADS_MAX:
            hangs(begun + 1)
    assert hanging.loads == 1 + LOADS_MAX
    hanging.let_go.set()
    wait_until(lambda: cache.get() is not first, "what hung has ended, and the book is renewed")


def test_given_an_age_of_zero_when_asked_then_every_book_is_fresh(source: Source, time: Time) -> None:
    cache = PriceCache(source.load, refresh_seconds=5.0, age_max_seconds=0.0, wait_seconds=120.0, clock=time)
    assert cache.get() is not cache.get()


def test_given_a_young_copy_when_a_renewed_one_is_wanted_then_it_is_loaded_at_most_once_a_second(
    cache: PriceCache, source: Source, time: Time
) -> None:
    first = cache.get()
    assert cache.renewed() is first
    time.seconds += 1.0
    assert cache.renewed() is not first
    assert source.loads == 2


def test_given_no_thread_to_be_had_when_there_is_one_again_then_the_book_is_loaded(
    cache: PriceCache, source: Source, time: Time, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L9: a load that could not begin is a failure like another, however often; it takes no place for ever."""

    def refused(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        for _ in range(2 * LOADS_MAX):
            with pytest.raises(Unreachable, match="no thread is to be had"):
                cache.get()
            time.seconds += 1.0
    assert isinstance(cache.get(), PriceBook)
    assert source.loads == 1
