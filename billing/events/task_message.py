"""A task's message, to be published once more by billing: what the broker had of it, where it went first. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kombu import serialization

#: What is no part of a message that is published once more: what queues write on it (a count of returns), and what
#: would send it to further queues again.
WAY_HEADERS: Final = frozenset({"x-delivery-count", "x-acquired-count", "CC", "BCC"})
_EMBEDDED: Final = ("callbacks", "errbacks", "chain", "chord")
_REGISTRY: Final[Any] = serialization.registry  # type: ignore[attr-defined]  # the stubs lack it


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class TaskMessage:
    """What is published: `body` in its own encoding, to `exchange` under `routing_key`."""

    body: bytes
    content_type: str
    content_encoding: str
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    exchange: str
    routing_key: str


def serializer_of(properties: Mapping[str, Any]) -> str | None:
    """Return how a message was encoded, where its transport says so and kombu knows it."""
    name: str | None = _REGISTRY.type_to_name.get(properties.get("content_type"))
    return name


def encode_body(
    request: Any, args: Sequence[Any], kwargs: Mapping[str, Any], serializer: str
) -> tuple[str, str, bytes]:
    """Return content type, content encoding and bytes of a request's call, with what Celery embeds beside it."""
    embedded = {name: getattr(request, name) for name in _EMBEDDED}
    content_type, encoding, body = _REGISTRY.dumps((tuple(args), dict(kwargs), embedded), serializer=serializer)
    return content_type, encoding, body.encode(encoding) if isinstance(body, str) else bytes(body)
