"""Calls the receivers of signals, each call in a thread of its own: one that hangs keeps nobody else waiting (L10).

Python cannot end a thread. So a receiver that hangs keeps its threads, `CALLS_MAX` of them at most in one process (L9);
after that it is not called any more until one of them ends, and the log says so.
"""

from __future__ import annotations

import logging
import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from enum import Enum
from typing import Any, Final

from billing.connections.per_process import PerProcess
from billing.core.apart import call_apart

logger = logging.getLogger(__name__)

#: Calls of one receiver under way in one process, those that hang included (L9).
CALLS_MAX: Final = 64
#: A call that lasts longer hangs: it is not waited for any more.
CALL_SECONDS_MAX: Final = 30.0

Receiver = Callable[..., object]


class Room(Enum):
    """Why a call is not begun."""

    #: All places are taken, by calls that may end any moment, or the process may have no more threads now.
    BUSY = "busy"
    #: All places are taken by calls that hang.
    HANGS = "hangs"


class Receivers:
    """The calls of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        #: When the calls of each receiver that are under way began.
        self._begun: defaultdict[object, list[float]] = defaultdict(list)

    def call(self, receiver: Receiver, named: Mapping[str, Any], now: float) -> Future[None] | Room:
        """Begin a call at a monotonic instant; its future ends when the call does, whatever that raised."""
        with self._lock:
            begun = self._begun[_key(receiver)]
            if len(begun) >= CALLS_MAX:
                return Room.HANGS if begun[-1] + CALL_SECONDS_MAX <= now else Room.BUSY
            begun.append(now)
        try:
            return call_apart(lambda: self._call(receiver, named, now), name="billing-alert-receiver")
        except RuntimeError as error:
            self._end(receiver, now)
            logger.warning("billing: the receiver %r is not called yet: %s", receiver, error)
            return Room.BUSY

    def _call(self, receiver: Receiver, named: Mapping[str, Any], began: float) -> None:
        try:
            receiver(**named)
        except BaseException:  # it ends this thread alone, whatever it is
            logger.exception("billing: the receiver %r of %s failed", receiver, named["signal"].name)
        self._end(receiver, began)

    def _end(self, receiver: Receiver, began: float) -> None:
        """Give a call's place back."""
        with self._lock:
            begun = self._begun[_key(receiver)]
            begun.remove(began)
            if not begun:
                del self._begun[_key(receiver)]


def _key(receiver: Receiver) -> object:
    """Return what is the same at each call: a method is made anew each time, and equals itself."""
    try:
        hash(receiver)
    except TypeError:
        return id(receiver)  # it lives while it is called
    return receiver


_RECEIVERS: Final = PerProcess(Receivers)


def receivers() -> Receivers:
    """Return this process's calls."""
    return _RECEIVERS.get()
