"""A parked task as its row says it, and what parking one more came to."""

from __future__ import annotations

import dataclasses
import uuid
from collections.abc import Mapping
from datetime import datetime
from enum import Enum
from typing import Any

from billing.events.task_message import TaskMessage
from billing.parking.message import from_text


class ParkOutcome(Enum):
    """What became of a delivery that was to be parked."""

    #: It waits, or a newer copy of the same run does or is under way.
    PARKED = "parked"
    #: The client has as many waiting as it may (L9).
    FULL = "full"
    #: The run has expired or was cancelled, and its caller was told so.
    ENDED = "ended"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Delivery:
    """A delivery that is to be parked: its message, and what its reserve asked for in vain."""

    run_id: uuid.UUID
    client_id: str
    task: str
    task_id: str
    sku: str
    credits: int
    available: int
    message: TaskMessage
    #: How often the run had been parked when this message was published.
    times: int


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class ParkedRow:
    """A parked task: waiting → started, expired or cancelled. A started one may come back to wait, at its old place."""

    parked_id: int
    run_id: uuid.UUID
    client_id: str
    task: str
    task_id: str
    sku: str
    credits: int
    state: str
    times: int
    parked_at: datetime
    expires_at: datetime
    ended_at: datetime | None


def message_of(row: Mapping[str, Any]) -> TaskMessage:
    """Return the message of a row."""
    return TaskMessage(
        body=bytes(row["body"]),
        content_type=row["content_type"],
        content_encoding=row["content_encoding"],
        headers=from_text(row["headers"]),
        properties=from_text(row["properties"]),
        exchange=row["exchange"],
        routing_key=row["routing_key"],
    )
