"""Hears Celery signals while a test runs: what was sent, in order, by which signal, with what it said."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from celery.utils.dispatch import Signal


@contextlib.contextmanager
def hearing(*signals: Signal) -> Iterator[list[tuple[str, dict[str, Any]]]]:
    """Yield the list that grows by (signal's name, arguments) with each that is sent."""
    heard: list[tuple[str, dict[str, Any]]] = []

    def hear(signal: Any, sender: object, **named: Any) -> None:
        heard.append((signal.name, named))

    for signal in signals:
        signal.connect(hear)
    try:
        yield heard
    finally:
        for signal in signals:
            signal.disconnect(hear)
