"""Idempotency keys of v1: which call is being executed under a key, and whether a repeated one is the same call.

Guarantee: two calls under one key, or (a knob) for one customer and meter, are never executed at the same time; the
second is refused with 409 and saves nothing.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.errors import Refusal

KEY_MAX: Final = 255


def check_key(key: str) -> None:
    """Refuse a key that is longer than Stripe takes."""
    if not key or len(key) > KEY_MAX:
        message = f"Invalid Idempotency-Key: must have from 1 to {KEY_MAX} characters"
        raise Refusal(400, message, kind="idempotency_error")


def fingerprint(method: str, path: str, params: Mapping[str, Any]) -> str:
    """Return what makes two calls the same; the order of parameters does not."""
    text = json.dumps([method, path, params], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


class InFlight:
    """What is being executed now."""

    def __init__(self) -> None:
        self._keys: set[str] = set()
        self._places: set[tuple[str, str]] = set()

    @contextlib.contextmanager
    def key(self, key: str | None) -> Iterator[None]:
        """Hold an idempotency key while its call is executed."""
        if key is None:
            yield
            return
        if key in self._keys:
            raise errors.key_in_use(key)
        self._keys.add(key)
        try:
            yield
        finally:
            self._keys.discard(key)

    @contextlib.contextmanager
    def place(self, place: tuple[str, str] | None) -> Iterator[None]:
        """Hold a customer and meter while a call for them is executed."""
        if place is None:
            yield
            return
        if place in self._places:
            raise errors.too_many_concurrent()
        self._places.add(place)
        try:
            yield
        finally:
            self._places.discard(place)
