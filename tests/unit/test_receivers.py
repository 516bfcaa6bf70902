"""One receiver has so many calls at a time, whatever kind of callable it is, and hides no other (L9, L10)."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable
from concurrent.futures import Future

import pytest

from billing.alerts import receivers
from billing.alerts.receivers import CALL_SECONDS_MAX, Receivers, Room
from billing.alerts.signals import low_balance


@dataclasses.dataclass
class Hanging:
    """What is called, as an object that has no hash, and by its method."""

    go_on: threading.Event = dataclasses.field(default_factory=threading.Event)

    def __call__(self, **_: object) -> None:
        """Hang."""
        self.go_on.wait()

    def method(self, **_: object) -> None:
        """Hang."""
        self.go_on.wait()


@pytest.mark.parametrize("pick", [lambda one: one, lambda one: one.method], ids=["object", "method"])
def test_a_receiver_whose_places_are_taken_is_busy_and_in_the_end_hangs(
    monkeypatch: pytest.MonkeyPatch, pick: Callable[[Hanging], Callable[..., object]]
) -> None:
    """Given two calls that do not end, then there is no third, until one has ended; another receiver has its own."""
    monkeypatch.setattr(receivers, "CALLS_MAX", 2)
    calls, one, other = Receivers(), Hanging(), Hanging()
    named = {"signal": low_balance}
    begun = [calls.call(pick(one), named, now) for now in (0.0, 1.0)]
    assert all(isinstance(call, Future) for call in begun)
    assert calls.call(pick(one), named, 2.0) is Room.BUSY
    assert calls.call(pick(one), named, CALL_SECONDS_MAX) is Room.BUSY, "the second one may end any moment"
    assert calls.call(pick(one), named, CALL_SECONDS_MAX + 1) is Room.HANGS
    last = calls.call(pick(other), named, 2.0)
    assert isinstance(last, Future)
    for hanging, futures in ((one, begun), (other, [last])):
        hanging.go_on.set()
        for future in futures:
            assert isinstance(future, Future)
            future.result(60)
    again = calls.call(pick(one), named, CALL_SECONDS_MAX + 1)
    assert isinstance(again, Future)
    again.result(60)


def test_a_call_that_finds_no_thread_leaves_its_place_to_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    """Given a process that may have no more threads, then the receiver is busy, and was not called."""
    monkeypatch.setattr(receivers, "CALLS_MAX", 1)
    calls, called = Receivers(), threading.Event()
    named = {"signal": low_balance}

    def receiver(**_: object) -> None:
        called.set()

    def no_thread(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", no_thread)
        assert calls.call(receiver, named, 0.0) is Room.BUSY
    assert not called.is_set()
    again = calls.call(receiver, named, 1.0)
    assert isinstance(again, Future)
    again.result(60)
    assert called.is_set()
