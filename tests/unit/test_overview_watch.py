"""One thread reads for everybody who asks, from the first question on; what goes wrong once is read again."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta
from typing import Any

import pytest

from billing.observability.overview import watch as watch_module
from billing.observability.overview.watch import Watch, watch_of
from billing.testing.clock import TestClock
from tests.waiting import wait_until


class Runtime:
    """Of a runtime, its clock."""

    def __init__(self) -> None:
        self.clock = TestClock()


class Reader:
    """A reader that answers the number of the reading, but for its second, which fails."""

    made = 0
    closed = 0

    def __init__(self, *_: Any, **__: Any) -> None:
        type(self).made += 1
        self.readings = 0

    def read(self, **_: Any) -> int:
        """Answer."""
        self.readings += 1
        if self.readings == 2:
            raise RuntimeError
        return self.readings

    def close(self) -> None:
        """Count it."""
        type(self).closed += 1


@pytest.fixture(autouse=True)
def reader(monkeypatch: pytest.MonkeyPatch) -> None:
    Reader.made = Reader.closed = 0
    monkeypatch.setattr(watch_module, "FleetReader", Reader)


def test_given_many_who_ask_at_once_then_one_thread_reads(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)
    watch = Watch(Runtime(), every_seconds=0.001)  # type: ignore[arg-type]
    assert (watch.age_seconds, Reader.made) == (None, 0)
    askers = [threading.Thread(target=lambda: watch.latest(wait_seconds=60)) for _ in range(20)]
    for asker in askers:
        asker.start()
    for asker in askers:
        asker.join()
    assert Reader.made == 1
    assert watch.latest() is not None
    watch.close()
    assert Reader.closed == 1


def test_given_a_reading_that_fails_then_the_one_before_stays_and_the_next_is_made(
    caplog: pytest.LogCaptureFixture,
) -> None:
    watch = Watch(Runtime(), every_seconds=0.001)  # type: ignore[arg-type]
    first: Any = watch.latest(wait_seconds=60)
    assert first in (1, 3)
    wait_until(lambda: watch.readings >= 3, "it reads on")
    watch.close()
    assert "the fleet could not be read" in caplog.text


def test_the_age_is_that_of_the_latest_reading() -> None:
    runtime: Any = Runtime()
    watch = Watch(runtime, every_seconds=3_600)
    watch.latest(wait_seconds=60)
    assert watch.age_seconds == 0.0
    runtime.clock.advance(timedelta(seconds=7))
    assert watch.age_seconds == pytest.approx(7.0)
    watch.close()


def test_pages_and_scrapes_of_a_process_share_one_watch() -> None:
    runtime: Any = Runtime()
    assert watch_of(runtime, "app") is watch_of(runtime, "app")
