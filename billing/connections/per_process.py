"""Connections are made lazily, once per process, and forgotten after a fork: sockets must never be shared (L9)."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")

_all: weakref.WeakSet[PerProcess[object]] = weakref.WeakSet()


class PerProcess(Generic[T]):
    """Holds what `factory` makes, one per process."""

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory = factory
        self._lock = threading.Lock()
        self._made: T | None = None
        _all.add(self)  # type: ignore[arg-type]

    def get(self) -> T:
        """Return this process's one, making it at first."""
        made = self._made
        if made is not None:
            return made
        with self._lock:
            if self._made is None:
                self._made = self._factory()
            return self._made

    @property
    def made(self) -> T | None:
        """This process's one, or None if nobody has asked for it yet."""
        return self._made

    def forget(self) -> None:
        """Drop it without closing: after a fork the sockets belong to the parent, and its lock may be held."""
        self._lock = threading.Lock()
        self._made = None


def _forget_all() -> None:
    for holder in list(_all):
        holder.forget()


os.register_at_fork(after_in_child=_forget_all)
