"""Run ids: one id for the run, its reservation and its usage event, the same on every delivery (L3).

A run id is a UUIDv7 (RFC 9562) whose 48 time bits come from the publish and whose other bits are a hash of what
identifies the run. It is therefore time-ordered (partitions are ranges of it) and deterministic (a redelivery, a
retry and a republished chain child get the same one). Messages from senders without the library have no publish
time: their 48 time bits are all ones.
"""

from __future__ import annotations

import hashlib
import secrets
import uuid
from typing import Final

#: The 48 time bits of a run whose message carries no publish time.
LEGACY_MILLISECONDS: Final = 2**48 - 1

_HASHED_BITS: Final = 74
_VERSION: Final = 0x7 << 76
_VARIANT: Final = 0b10 << 62


def run_id(client_id: str, task_id: str, *, nesting: int, nonce: str, at_milliseconds: int | None) -> uuid.UUID:
    """Return the id of the run of `task_id` for `client_id`.

    `nesting` is Celery's `replaced_task_nesting`, `nonce` the header `billing_nonce` (empty inside a task), and
    `at_milliseconds` the header `billing_at`, or None for a sender without the library.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in (client_id, task_id, str(nesting), nonce):
        encoded = part.encode()
        digest.update(len(encoded).to_bytes(8, "big"))
        digest.update(encoded)
    bits = int.from_bytes(digest.digest(), "big") >> (128 - _HASHED_BITS)
    time_bits = LEGACY_MILLISECONDS if at_milliseconds is None else at_milliseconds & LEGACY_MILLISECONDS
    high, low = bits >> 62, bits & (2**62 - 1)
    return uuid.UUID(int=time_bits << 80 | _VERSION | high << 64 | _VARIANT | low)


def milliseconds_of(identifier: uuid.UUID) -> int:
    """Return the 48 time bits of a run id, in milliseconds since the Unix epoch."""
    return identifier.int >> 80


def new_nonce() -> str:
    """Return a fresh value for the header `billing_nonce`: it tells two submissions of one task id apart."""
    return secrets.token_hex(8)


def new_token() -> str:
    """Return a fresh attempt token: one delivery of a run."""
    return secrets.token_hex(8)


def new_settlement_id() -> str:
    """Return a fresh settlement id: the one act of settling that took the credits."""
    return secrets.token_hex(16)
