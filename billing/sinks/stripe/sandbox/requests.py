"""A request, its answer, and the log of both. Nothing of a key that authorizes is kept."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping
from typing import Any, Final

from billing.sinks.stripe.sandbox.faults import Fault

KEPT_MAX: Final = 10_000
_LONGEST: Final = 255


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """A request as it came; `form` is its body, or its query without one. `fields` are given where no form was."""

    method: str
    path: str
    form: str = ""
    authorization: str | None = None
    key: str | None = None
    fields: Mapping[str, Any] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Reply:
    """An answer; `body` is JSON."""

    status: int
    body: str
    headers: dict[str, str]


def customer_of(fields: Mapping[str, Any]) -> str | None:
    """Return the customer that a call is about, as far as its parameters say it with Stripe's usual names."""
    payload = fields.get("payload")
    found = payload.get("stripe_customer_id") if isinstance(payload, dict) else fields.get("customer")
    return found if isinstance(found, str) else None


def _short(text: object) -> str | None:
    return text[:_LONGEST] if isinstance(text, str) else None


class RequestLog:
    """The last requests, oldest first."""

    def __init__(self, most: int = KEPT_MAX) -> None:
        self._entries: collections.deque[tuple[Any, ...]] = collections.deque(maxlen=most)

    def add(
        self, request: Request, fields: Mapping[str, Any], fault: Fault | None, *, status: int | None, at: int
    ) -> None:
        """Note a request; `status` is None when nothing was executed and the connection broke."""
        named = (request.key, fields.get("identifier"), customer_of(fields), fields.get("event_name"))
        kind = None if fault is None else fault.kind
        self._entries.append((request.method, request.path[:_LONGEST], status, *map(_short, named), at, kind))

    def clear(self) -> None:
        """Forget all."""
        self._entries.clear()

    def list(self) -> list[dict[str, Any]]:
        """Return the entries. With a fault that loses the answer, `status` is what the caller never saw."""
        names = ("method", "path", "status", "idempotency_key", "identifier", "customer", "event_name", "at", "fault")
        return [dict(zip(names, entry, strict=True)) for entry in self._entries]
