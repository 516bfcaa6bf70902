"""Whose call it is: any test key is taken, a live one never. Nothing of a key is kept or repeated."""

from __future__ import annotations

import base64
import contextlib
import functools
import re
from typing import Final

from billing.sinks.stripe.sandbox import errors

_TEST_KEY: Final = re.compile(r"(sk|rk)_test_[A-Za-z0-9_]+")
_LIVE_KEY: Final = re.compile(r"(sk|rk|pk)_live_.*", re.DOTALL)


def check(authorization: str | None) -> None:
    """Refuse what is no test key."""
    verdict = _verdict(authorization or "")
    if verdict == "missing":
        raise errors.no_key()
    if verdict == "live":
        raise errors.live_key()
    if verdict == "wrong":
        raise errors.wrong_key()


@functools.lru_cache(maxsize=16)
def _verdict(authorization: str) -> str:
    key = _key(authorization)
    if not key:
        return "missing"
    if _LIVE_KEY.fullmatch(key):
        return "live"
    return "test" if _TEST_KEY.fullmatch(key) else "wrong"


def _key(authorization: str) -> str:
    """Return the key: as the SDK sends it, or as a user name, as `curl -u sk_test_…:` does. Both are documented."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            return base64.b64decode(given, validate=True).decode().partition(":")[0]
    return ""
