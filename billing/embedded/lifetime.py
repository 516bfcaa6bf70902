"""The life of a command that owns a stack: one clean stop, whoever asks for it, and an end when its parent ends.

Guarantee: Ctrl-C, SIGTERM and SIGHUP each raise `Stopped` in the main thread, once; whatever comes while the stop is
under way is ignored, so that it is never cut in half (it is bounded: every server that does not end in time is killed).
With `end_with_parent`, the death of the parent (SIGKILL of `make`, of a shell, of a test runner) counts as a SIGTERM.
SIGKILL of this process is the guards' business.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Final

POLL_SECONDS: Final = 0.5
STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Stopped(SystemExit):
    """The process was asked to end; its exit code is 128 + the signal, as shells have it."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = signal.Signals(number)


@contextlib.contextmanager
def clean_stop() -> Iterator[None]:
    """Within, the first of SIGINT, SIGTERM, SIGHUP raises `Stopped`; the following ones are ignored. Main thread only.

    A SIGHUP that was ignored from the start (nohup) stays ignored.
    """
    stopping = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        # The next signal may interrupt this handler at any line. A plain name needs no lock; an `Event` has one, and
        # the second signal would wait for ever for what the first one holds.
        if not stopping:
            stopping = True
            raise Stopped(number)

    previous = {number: signal.getsignal(number) for number in STOP_SIGNALS}
    for number, handler in previous.items():
        if handler is not signal.SIG_IGN or number == signal.SIGTERM:
            signal.signal(number, stop)
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)


def end_with_parent() -> None:
    """From now on, send this process SIGTERM when its parent has died.

    The parent is watched by a descriptor (Linux) or by polling. Linux's parent-death signal would be simpler and is
    wrong here: it comes when the *thread* that started this process ends.
    """
    parent = os.getppid()
    if parent > 0:  # 0: this process is the first of a container
        threading.Thread(target=_watch, args=(parent, _terminate), name="end-with-parent", daemon=True).start()


def _watch(parent: int, ended: Callable[[], None]) -> None:
    with contextlib.suppress(OSError, AttributeError):  # no such call on this system, or forbidden: poll
        descriptor = os.pidfd_open(parent)
        try:
            if os.getppid() == parent:
                select.select([descriptor], [], [])
        finally:
            os.close(descriptor)
    while os.getppid() == parent:
        time.sleep(POLL_SECONDS)
    ended()


def _terminate() -> None:
    os.kill(os.getpid(), signal.SIGTERM)
