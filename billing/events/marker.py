"""The marker message: it travels through a usage queue like an event, and proves what came before it (L6).

Recovery sends one and waits until the consumer has committed it: everything that was published to that queue before
is then in the log. `{"version": 1, "marker": "<uuid>", "shard": 3}`.
"""

from __future__ import annotations

import uuid
from typing import Final

import msgspec

VERSION: Final = 1


class MarkerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """A marker as it is on the wire. Unknown fields are ignored, as in the usage event."""

    version: int = VERSION
    marker: uuid.UUID
    shard: int


def encode_marker(token: uuid.UUID, shard: int) -> bytes:
    """Return the body of a marker for the queue of `shard`."""
    return msgspec.json.encode(MarkerMessage(marker=token, shard=shard))
