"""The message of a delivery, once more: what goes to a wait queue so that the same delivery comes back.

Same id, headers, body, retries, callbacks, chain, chord and properties. What is left out: the ETA, which is over, the
counts that the new ones replace, and what a queue wrote on the message or must not read there again.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Final

from kombu import compression, serialization

from billing.task.waits import Waits, without_waits

#: What queues write (a count of returns), and what would send the message to further queues when its wait is over.
_HEADERS_LEFT: Final = frozenset({"x-delivery-count", "x-acquired-count", "CC", "BCC"})
#: Apart: headers and body. Left out: the time to live of the message, since RabbitMQ takes it off where a queue hands
#: over (the header `expires` stays, and Celery keeps it), and the user who sent it, which RabbitMQ compares with us.
_PROPERTIES_LEFT: Final = frozenset(
    {"application_headers", "content_type", "content_encoding", "expiration", "user_id"}
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Again:
    """A message to be published for the second time, and where it was published to first."""

    exchange: str
    routing_key: str
    body: bytes
    content_type: str
    content_encoding: str
    headers: dict[str, Any]
    properties: dict[str, Any]


def message_again(request: Any, args: Sequence[Any], kwargs: Mapping[str, Any], waits: Waits) -> Again | None:
    """Return the message of a delivery, or None where it is not known: not from RabbitMQ, or of Celery's protocol 1."""
    properties, delivery_info = request.properties or {}, request.delivery_info or {}
    headers, routing_key = properties.get("application_headers") or {}, delivery_info.get("routing_key")
    registry: Any = serialization.registry  # type: ignore[attr-defined]  # the stubs lack it
    serializer = registry.type_to_name.get(properties.get("content_type"))
    if "task" not in headers or "id" not in headers or not routing_key or serializer is None:
        return None
    kept = {name: value for name, value in without_waits(headers).items() if name not in _HEADERS_LEFT}
    embedded = {name: getattr(request, name) for name in ("callbacks", "errbacks", "chain", "chord")}
    content_type, encoding, body = registry.dumps((tuple(args), dict(kwargs), embedded), serializer=serializer)
    raw = body.encode(encoding) if isinstance(body, str) else bytes(body)
    if "compression" in kept:
        raw, _ = compression.compress(raw, kept["compression"])
    return Again(
        exchange=delivery_info.get("exchange") or "",
        routing_key=routing_key,
        body=raw,
        content_type=content_type,
        content_encoding=encoding,
        headers=kept | {"eta": None} | waits.headers(),
        properties={name: value for name, value in properties.items() if name not in _PROPERTIES_LEFT},
    )
