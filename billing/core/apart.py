"""A call in a thread of its own, for what may never return: nobody else waits for it, nor does the process' end."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

T = TypeVar("T")


def call_apart(call: Callable[[], T], *, name: str) -> Future[T]:
    """Begin a call in a thread of this name; the future has what it returned or raised.

    Raises `RuntimeError` where no thread is to be had: the machine has none left, or the interpreter ends.
    """
    ended: Future[T] = Future()

    def run() -> None:
        try:
            returned = call()
        except BaseException as error:  # noqa: BLE001 - it ends this thread alone, whatever it is
            ended.set_exception(error)
        else:
            ended.set_result(returned)

    threading.Thread(target=run, name=name, daemon=True).start()
    return ended
