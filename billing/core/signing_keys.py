"""Keys that sign usage events: a sender's name and a secret of at least 32 bytes, written `NAME:BASE64`. Pure.

A name is a sender's and a key's at once: a new key is a new name, so that two stand side by side during
a change. Neither a refusal nor a repr shows a secret.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
from collections.abc import Sequence
from typing import Final

from billing.core.errors import InvalidValue

#: HMAC-SHA256 is as strong as its key up to the length of its digest (RFC 2104, section 3).
SECRET_BYTES_MIN: Final = 32
SECRET_BYTES_MAX: Final = 1_024
#: Senders that one consumer knows, two keys each while they are changed (L9).
KEYS_MAX: Final = 256
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_BETWEEN: Final = re.compile(r"[\s,]+")
_RULE: Final = (
    f"must be NAME:SECRET, the name 1 to 64 letters, digits, dots, hyphens and underscores, the secret the base64 of "
    f"{SECRET_BYTES_MIN} to {SECRET_BYTES_MAX} random bytes (openssl rand -base64 32)"
)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class SigningKey:
    """Who signs, and with what."""

    sender: str
    secret: bytes = dataclasses.field(repr=False)


def signing_key(key: str, value: object) -> SigningKey | None:
    """Return the key that a setting holds; None for "". Raises `InvalidValue`, without the secret."""
    if value is None or value == "":
        return None
    if isinstance(value, SigningKey):
        return value
    name, _, text = value.strip().partition(":") if isinstance(value, str) else ("", "", "")
    try:
        secret = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        secret = b""
    # What stands in a name's place may be the secret, where this is none.
    if not secret or not _NAME.fullmatch(name):
        raise InvalidValue(key, "…", _RULE)
    if not SECRET_BYTES_MIN <= len(secret) <= SECRET_BYTES_MAX:
        raise InvalidValue(key, f"{name}:…", f"has {len(secret)} bytes: {_RULE}")
    return SigningKey(sender=name, secret=secret)


def signing_keys(key: str, value: object) -> tuple[SigningKey, ...]:
    """Return several keys: a list, or text with commas, blanks or line ends between them. Empty means none."""
    if value is None:
        return ()
    parts = [part for part in _BETWEEN.split(value) if part] if isinstance(value, str) else value
    if not isinstance(parts, Sequence) or isinstance(parts, bytes) or len(parts) > KEYS_MAX:
        raise InvalidValue(key, "…", f"must be a list of at most {KEYS_MAX} keys, each NAME:SECRET")
    found = [each for each in (signing_key(key, part) for part in parts) if each is not None]
    for sender in {each.sender for each in found}:
        if sum(each.sender == sender for each in found) > 1:
            raise InvalidValue(key, f"{sender}:…", "must be there once: a new key of a sender has a new name")
    return tuple(found)


def showable(value: object) -> str:
    """Return what may be shown of a setting that holds keys: their senders' names."""
    try:
        return ",".join(f"{each.sender}:…" for each in signing_keys("", value))
    except InvalidValue:  # it is refused when the settings are read; until then nothing of it is shown
        return "…"
