"""Parsers of settings: each takes a key and a value, and returns what it means or raises `InvalidValue`.

A value may come from Python or, as text, from the environment. A secret is never part of the refusal.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

from billing.core.errors import InvalidValue

Parser = Callable[[str, object], Any]

_EVENT_NAME: Final = re.compile(r"[A-Za-z0-9._-]{1,100}")
_REFERENCE: Final = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*")
_LISTENING: Final = re.compile(r"(([A-Za-z0-9.-]+|\[[0-9A-Fa-f:.]+\]):)?[0-9]{1,5}")
_PORT_MAX: Final = 65_535
_PERCENTS_MAX: Final = 8
_API_KEY: Final = re.compile(r"(sk|rk)_(test|live)_[A-Za-z0-9]{8,}")


def whole(minimum: int, maximum: int) -> Parser:
    """Return the parser of a whole number from `minimum` to `maximum`."""
    rule = f"must be a whole number from {minimum} to {maximum}"

    def parse(key: str, value: object) -> int:
        if isinstance(value, str):
            try:
                value = int(value)
            except ValueError:
                raise InvalidValue(key, value, rule) from None
        if isinstance(value, bool) or not isinstance(value, int) or not minimum <= value <= maximum:
            raise InvalidValue(key, value, rule)
        return value

    return parse


def seconds(minimum: float, maximum: float) -> Parser:
    """Return the parser of a number of seconds from `minimum` to `maximum`."""
    rule = f"must be a number of seconds from {minimum:g} to {maximum:g}"

    def parse(key: str, value: object) -> float:
        if isinstance(value, str):
            try:
                value = float(value)
            except ValueError:
                raise InvalidValue(key, value, rule) from None
        if isinstance(value, bool) or not isinstance(value, int | float) or not minimum <= value <= maximum:
            raise InvalidValue(key, value, rule)
        return float(value)

    return parse


def choice(*choices: str) -> Parser:
    """Return the parser of one of some words."""

    def parse(key: str, value: object) -> str:
        if not isinstance(value, str) or value not in choices:
            raise InvalidValue(key, value, f"must be one of: {', '.join(choices)}")
        return value

    return parse


def url(*schemes: str) -> Parser:
    """Return the parser of a URL of some schemes; its password never shows."""

    def parse(key: str, value: object) -> str:
        if not isinstance(value, str):
            shown = "…" if isinstance(value, bytes | Mapping) else value
            raise InvalidValue(key, shown, "must be a URL, as text")
        # The value may hold a password, so only its scheme is shown.
        scheme = value.split("://", 1)[0] if "://" in value else ""
        if scheme not in schemes:
            known = f"{scheme}://…" if scheme.isidentifier() else "…"
            raise InvalidValue(key, known, f"must be a URL that begins with {' or '.join(s + '://' for s in schemes)}")
        if not value.isprintable():
            # No server has such a name; a client library would say so with a traceback, or leave the character out.
            raise InvalidValue(key, f"{scheme}://…", "must be a URL of printable characters")
        try:
            urlsplit(value).port  # noqa: B018 - read, because a wrong one raises
        except ValueError:
            # Not chained: Python's message quotes the place where an unescaped password stands.
            rule = "must be a URL with a valid host and port, user and password percent-encoded"
            raise InvalidValue(key, f"{scheme}://…", rule) from None
        return value

    return parse


def name(key: str, value: object) -> str:
    """Return a name that brokers and providers take."""
    if not isinstance(value, str) or not value or not value.replace(".", "").replace("-", "").isalnum():
        raise InvalidValue(key, value, "must be letters, digits, dots and hyphens")
    return value


def event_name(key: str, value: object) -> str:
    """Return the event name of a Stripe meter: at most 100 characters."""
    if not isinstance(value, str) or not _EVENT_NAME.fullmatch(value):
        raise InvalidValue(key, value, "must be 1 to 100 letters, digits, dots, hyphens and underscores")
    return value


def flag(key: str, value: object) -> bool:
    """Return a yes or no."""
    if isinstance(value, bool):
        return value
    # A number of many digits has no text in Python: only 0 and 1 are looked at.
    given = str(value).lower() if not isinstance(value, int) or value in (0, 1) else ""
    found = {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(given)
    if found is None:
        raise InvalidValue(key, value, "must be true or false")
    return found


def percents(key: str, value: object) -> tuple[int, ...]:
    """Return percentages from 1 to 99, the largest first: a list, or text as `20,5`. Empty means none."""
    rule = f"must be at most {_PERCENTS_MAX} different whole numbers from 1 to 99, as 20,5"
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")] if value.strip() else []
    if not isinstance(value, Sequence) or isinstance(value, bytes) or len(value) > _PERCENTS_MAX:
        raise InvalidValue(key, value, rule)
    try:
        found = [int(part) for part in value if not isinstance(part, bool | float)]
    except (TypeError, ValueError):
        raise InvalidValue(key, value, rule) from None
    if len(set(found)) != len(value) or not all(1 <= part <= 99 for part in found):  # noqa: PLR2004 - percent
        raise InvalidValue(key, value, rule)
    return tuple(sorted(found, reverse=True))


def reference(key: str, value: object) -> str:
    """Return the name of a function, as `shop.payments:buy`, or "" for none. It is imported when it is needed."""
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not _REFERENCE.fullmatch(value):
        raise InvalidValue(key, value, "must be a function's name, as package.module:function")
    return value


def listening(key: str, value: object) -> str:
    """Return an address to listen on as `host:port`, or "" for none; a port alone is one of 127.0.0.1."""
    if value is None or value == "":
        return ""
    is_port = isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= _PORT_MAX
    given = str(value) if is_port else value
    rule = "must be a port, or host:port, as 9464 or 127.0.0.1:9464 or [::1]:9464"
    if not isinstance(given, str) or not _LISTENING.fullmatch(given):
        raise InvalidValue(key, value, rule)
    host, _, port = given.rpartition(":")
    if int(port) > _PORT_MAX:
        raise InvalidValue(key, value, rule)
    return f"{host or '127.0.0.1'}:{int(port)}"


def stripe_key(key: str, value: object) -> str:
    """Return a Stripe API key, or "" for none. A refused key is not shown: it may be a secret with a typing mistake."""
    if value is None or value == "":
        return ""
    if not isinstance(value, str) or not _API_KEY.fullmatch(value):
        raise InvalidValue(key, "…", "must be a Stripe secret or restricted key, as sk_test_… or rk_live_…")
    return value
