"""The message of a delivery, once more: what goes to a wait queue so that the same delivery comes back.

Same id, headers, body, retries, callbacks, chain, chord and properties. What is left out: the ETA, which is over, the
counts that the new ones replace, and what a queue wrote on the message or must not read there again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from kombu import compression

from billing.events.task_message import WAY_HEADERS, TaskMessage, encode_body, serializer_of
from billing.task.waits import Waits, without_waits

#: Apart: headers and body. Left out: the time to live of the message, since RabbitMQ takes it off where a queue hands
#: over (the header `expires` stays, and Celery keeps it), and the user who sent it, which RabbitMQ compares with us.
_PROPERTIES_LEFT: Final = frozenset(
    {"application_headers", "content_type", "content_encoding", "expiration", "user_id"}
)


def message_again(request: Any, args: Sequence[Any], kwargs: Mapping[str, Any], waits: Waits) -> TaskMessage | None:
    """Return the message of a delivery, or None where it is not known: not from RabbitMQ, or of Celery's protocol 1."""
    properties, delivery_info = request.properties or {}, request.delivery_info or {}
    headers, routing_key = properties.get("application_headers") or {}, delivery_info.get("routing_key")
    serializer = serializer_of(properties)
    if "task" not in headers or "id" not in headers or not routing_key or serializer is None:
        return None
    kept = {name: value for name, value in without_waits(headers).items() if name not in WAY_HEADERS}
    content_type, encoding, body = encode_body(request, args, kwargs, serializer)
    if "compression" in kept:
        body, _ = compression.compress(body, kept["compression"])
    return TaskMessage(
        exchange=delivery_info.get("exchange") or "",
        routing_key=routing_key,
        body=body,
        content_type=content_type,
        content_encoding=encoding,
        headers=kept | {"eta": None} | waits.headers(),
        properties={name: value for name, value in properties.items() if name not in _PROPERTIES_LEFT},
    )
