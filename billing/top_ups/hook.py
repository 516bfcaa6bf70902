"""The application's hook: found by its name, called in a thread of its own, at most one call per client at a time.

A hook that hangs keeps its thread, since Python cannot end one; it keeps neither the loop nor another client waiting,
until `CALLS_MAX` of them hang in one process: then none is begun any more, and the log says so (L9, L10).
"""

from __future__ import annotations

import functools
import importlib
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Final

from billing.connections.per_process import PerProcess
from billing.core.apart import call_apart
from billing.core.errors import InvalidValue
from billing.top_ups.request import Request

logger = logging.getLogger(__name__)

#: Calls under way in one process, those that hang included (L9).
CALLS_MAX: Final = 64

Hook = Callable[[Request], object]


@functools.lru_cache(maxsize=8)
def load_hook(name: str) -> Hook:
    """Return the function that `module:function` names. Raises `InvalidValue`."""
    module, _, function = name.partition(":")
    try:
        found = getattr(importlib.import_module(module), function)
    except (Exception, SystemExit) as error:  # a module of the user's may raise anything; a script exits
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise InvalidValue("billing_top_up_hook", name, f"cannot be imported: {reason}") from error
    if not callable(found):
        raise InvalidValue("billing_top_up_hook", name, "must name a function")
    hook: Hook = found
    return hook


class Calls:
    """The calls of one process."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._clients: set[str] = set()

    def busy(self) -> list[str]:
        """Return the clients that a call is under way for."""
        with self._lock:
            return sorted(self._clients)

    def start(self, hook: Hook, request: Request) -> Future[object] | None:
        """Begin a call; None if its client has one already, every place is taken, or no thread is to be had."""
        with self._lock:
            if request.client_id in self._clients or len(self._clients) >= CALLS_MAX:
                return None
            self._clients.add(request.client_id)
        try:
            return call_apart(lambda: self._call(hook, request), name=f"billing-top-up-{request.request_id}")
        except RuntimeError as error:
            with self._lock:
                self._clients.discard(request.client_id)
            logger.warning("billing: the top-up hook is not called yet for request %d: %s", request.request_id, error)
            return None

    def _call(self, hook: Hook, request: Request) -> object:
        try:
            return hook(request)
        except BaseException as error:
            logger.exception("billing: the top-up hook failed for request %d", request.request_id)
            raise RuntimeError(f"raised {type(error).__name__}") from None
        finally:
            with self._lock:
                self._clients.discard(request.client_id)


_CALLS: Final = PerProcess(Calls)


def calls() -> Calls:
    """Return this process's calls."""
    return _CALLS.get()
