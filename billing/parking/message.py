"""A task's message, kept whole: what the broker had of it, and what is published when it is handed over. Pure.

Only what has no meaning for a second delivery is left out: its eta, which is over, its compression, and what RabbitMQ
noted on its way. What is left of its own `expires` is counted anew.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from kombu.utils.json import dumps, loads

from billing.events.task_message import WAY_HEADERS, TaskMessage

#: A message that was handed over says how often its run had been parked by then.
PARKED: Final = "billing_parked"

#: What RabbitMQ writes, and what was true of the first delivery alone.
_LEFT_OUT: Final = WAY_HEADERS | {"compression", "x-death"}
_WAY_PREFIXES: Final = ("x-first-death-", "x-last-death-")
#: Properties that are published again as they were.
_PROPERTIES: Final = ("app_id", "correlation_id", "delivery_mode", "message_id", "priority", "reply_to", "type")
_PERSISTENT: Final = 2


def kept_headers(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return the headers of a delivery as they are published again."""
    kept = {name: value for name, value in headers.items() if name not in _LEFT_OUT}
    return {name: value for name, value in kept.items() if not name.startswith(_WAY_PREFIXES)} | {"eta": None}


def kept_properties(properties: Mapping[str, Any]) -> dict[str, Any]:
    """Return the properties of a delivery as they are published again."""
    return {name: properties[name] for name in _PROPERTIES if properties.get(name) is not None}


def expires_at(headers: Mapping[str, Any]) -> datetime | None:
    """Return until when the sender wants the task to start, if it said so."""
    said = headers.get("expires")
    if isinstance(said, str):
        try:
            said = datetime.fromisoformat(said)
        except ValueError:
            # Celery would refuse it as well; it has let the delivery pass until here.
            return None
    if not isinstance(said, datetime):
        return None
    return said.replace(tzinfo=UTC) if said.tzinfo is None else said


def handed_over(message: TaskMessage, times: int, now: datetime) -> TaskMessage:
    """Return the message that starts a task which was parked so many times."""
    properties = {"delivery_mode": _PERSISTENT, **message.properties}
    until = expires_at(message.headers)
    if until is not None:
        properties["expiration"] = str(max(0, round((until - now).total_seconds() * 1_000)))
    return dataclasses.replace(message, headers={**message.headers, PARKED: times}, properties=properties)


def to_text(value: Mapping[str, Any]) -> str:
    """Return headers or properties as JSON; times and such as kombu writes them."""
    text: str = dumps(dict(value))
    return text


def from_text(text: str) -> dict[str, Any]:
    """Return what `to_text` was given."""
    value: dict[str, Any] = loads(text)
    return value


def parked_times(headers: Mapping[str, Any] | None) -> int:
    """Return how often the run of a delivery had been parked when it was handed over; 0: it never was."""
    times = (headers or {}).get(PARKED, 0)
    return times if isinstance(times, int) and not isinstance(times, bool) and times > 0 else 0
