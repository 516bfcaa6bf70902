"""What the stand-in keeps of metering: customers, meters, events, saved answers. Values only, no I/O."""

from __future__ import annotations

import dataclasses
import secrets
from typing import Any, Self


@dataclasses.dataclass(frozen=True, kw_only=True)
class Customer:
    """`details` are the fields that the caller set."""

    id: str
    created: int
    deleted: bool = False
    details: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Meter:
    """`details` are the settings that never change after the creation."""

    id: str
    event_name: str
    status: str = "active"
    created: int
    updated: int
    deactivated_at: int | None = None
    details: dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Event:
    """`value` is kept as the text that was sent. `dropped` is the code of the asynchronous error, None if it counts.

    `key` is the idempotency key that it came with; from `canceled_at` on it counts no more.
    """

    identifier: str
    event_name: str
    meter: str
    customer: str
    value: str
    timestamp: int
    received_at: int
    dropped: str | None = None
    key: str | None = None
    canceled_at: int | None = None
    api: str = "v1"
    payload: dict[str, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedReply:
    """An answer under an idempotency key; `fingerprint` covers the call's method, path and parameters."""

    fingerprint: str
    status: int
    body: str
    headers: dict[str, str]
    saved_at: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Document:
    """What is kept as a whole. `owner` is what it is listed by: a customer, or nobody."""

    id: str
    owner: str = ""

    @classmethod
    def of(cls, kept: dict[str, Any]) -> Self:
        """Return the document that was kept."""
        return cls(**kept)


def new_id(prefix: str) -> str:
    """Return an id of Stripe's form."""
    return f"{prefix}_{secrets.token_hex(12)}"
