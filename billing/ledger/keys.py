"""The key by which a caller makes a write of the ledger idempotent."""

from __future__ import annotations

from typing import Final

from billing.core.errors import InvalidValue

_KEY_LENGTH_MAX: Final = 255


def check_key(key: object) -> str:
    """Return the key: 1 to 255 printable characters."""
    if not isinstance(key, str) or not 1 <= len(key) <= _KEY_LENGTH_MAX or not key.isprintable():
        raise InvalidValue("key", key, f"must be 1 to {_KEY_LENGTH_MAX} printable characters")
    return key
