"""The rules for names that come from outside: client ids and SKUs. Parsed once, at the edge."""

from __future__ import annotations

import re
from typing import Final

from billing.core.errors import InvalidValue

CLIENT_ID_LENGTH_MAX: Final = 128
SKU_LENGTH_MAX: Final = 64
_SKU: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")


def check_client_id(value: object, *, field: str = "client_id") -> str:
    """Return a client id: 1 to 128 printable characters without spaces, opaque to billing."""
    if not isinstance(value, str):
        raise InvalidValue(field, value, "must be text")
    if not 1 <= len(value) <= CLIENT_ID_LENGTH_MAX or not value.isprintable() or " " in value:
        raise InvalidValue(field, value, f"must be 1 to {CLIENT_ID_LENGTH_MAX} printable characters without spaces")
    return value


def check_sku(value: object, *, field: str = "sku") -> str:
    """Return a SKU: 1 to 64 of `a-z 0-9 . _ -`, beginning with a letter or digit."""
    if not isinstance(value, str) or len(value) > SKU_LENGTH_MAX or not _SKU.fullmatch(value):
        raise InvalidValue(field, value, f"must be 1 to {SKU_LENGTH_MAX} of a-z 0-9 . _ - and begin with a-z 0-9")
    return value
