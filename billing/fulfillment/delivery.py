"""What the consumer hands to the usage log: one message, as it came, beside what it was decoded to.

The bytes stay with it, so that whatever is refused can be kept as it was (dead letter) and looked at later.
"""

from __future__ import annotations

import uuid

import msgspec

from billing.events.usage_event import UsageEvent


class Marker(msgspec.Struct, frozen=True, kw_only=True):
    """Says nothing but "everything that this queue carried before me is in the log once I am" (recovery, L6)."""

    token: uuid.UUID
    shard: int


class Poison(msgspec.Struct, frozen=True, kw_only=True):
    """A message that will never be a usage event, and why. It goes to the dead letters, and delays nobody (L10)."""

    reason: str
    #: Whether it is refused for its signature: then nobody knows who wrote it, nor whether it is anybody's work.
    forged: bool = False


class Delivered(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """One message of a usage queue."""

    body: bytes
    queue: str
    decoded: UsageEvent | Marker | Poison
