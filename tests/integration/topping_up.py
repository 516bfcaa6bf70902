"""The application's side of the top-up tests: a hook that answers as it is told, and writes down what it was asked."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from billing.top_ups.request import Request

HOOK = "tests.integration.topping_up:hook"
#: Where calls of other processes are written down, a line each.
CALLS_FILE = "TEST_TOP_UP_CALLS"
#: Set in a process whose hook kills it.
DEADLY = "TEST_TOP_UP_DEADLY"


class Shop:
    """What this process's hook does: by client, else for everyone; and every request that it got."""

    def __init__(self) -> None:
        self.calls: list[Request] = []
        self.answers: dict[str, Callable[[Request], object]] = {}
        self.answer: Callable[[Request], object] = lambda _: "granted"


_shop = Shop()
_lock = threading.Lock()


def hook(request: Request) -> object:
    """Answer as the shop does."""
    with _lock:
        _shop.calls.append(request)
    if CALLS_FILE in os.environ:
        with Path(os.environ[CALLS_FILE]).open("a", encoding="utf-8") as file:
            file.write(f"{request.request_id}\n")
    if DEADLY in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    return _shop.answers.get(request.client_id, _shop.answer)(request)


@contextmanager
def opened() -> Iterator[Shop]:
    """Have a shop of this test's own."""
    global _shop  # noqa: PLW0603 - a hook is found by its name, so what it does is the module's
    before, _shop = _shop, Shop()
    try:
        yield _shop
    finally:
        _shop = before
