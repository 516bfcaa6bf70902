"""The rule for a webhook's URL, which an operator sets and our workers call: pure.

https, or http to this very machine; `insecure` allows http elsewhere. No user or password, which logs and lists would
show. Where the host leads to is not judged: only the operator sets it, never the client.
"""

from __future__ import annotations

import ipaddress
import re
from typing import Final
from urllib.parse import urlsplit

from billing.core.errors import InvalidValue

_LENGTH_MAX: Final = 2_000
#: DNS (RFC 1035): a name, and each of its labels.
_NAME_LENGTH_MAX: Final = 253
_LABEL: Final = re.compile(r"(?!-)[A-Za-z0-9_-]{1,63}(?<!-)")


def check_webhook_url(value: object, *, insecure: bool = False) -> str:
    """Return a URL that webhooks may be sent to, or raise `InvalidValue`."""
    if not isinstance(value, str) or not value.isprintable() or " " in value or len(value) > _LENGTH_MAX:
        rule = f"must be a URL of at most {_LENGTH_MAX} printable characters without spaces"
        raise InvalidValue("url", _shown(value), rule)
    try:
        parts = urlsplit(value)
        host, port = parts.hostname, parts.port
        possible = port != 0 and (not host or _is_address(host) or _is_name(host))
    except ValueError:
        possible = False
    if not possible:
        raise InvalidValue("url", "…", "must be a URL with a valid host and port")
    if parts.username is not None or parts.password is not None:
        raise InvalidValue("url", "…", "must hold no user or password: the call is signed instead")
    if parts.scheme not in ("http", "https") or not host:
        raise InvalidValue("url", _shown(value), "must be a URL that begins with https:// and names a host")
    if parts.fragment:
        raise InvalidValue("url", _shown(value), "must have no fragment (#…)")
    if parts.scheme == "http" and not insecure and not _is_loopback(host):
        raise InvalidValue("url", _shown(value), "must begin with https://, or be allowed by --insecure")
    return value


def _shown(value: object) -> object:
    """Return a value unless a password may stand in it, before an @ that is no part of a valid URL's host."""
    return "…" if isinstance(value, str) and "@" in value else value


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _is_name(host: str) -> bool:
    """Whether a host may be looked up: labels of letters, digits, - and _, which some name their containers with.

    Raises `ValueError` for other letters that no name can have.
    """
    name = host.removesuffix(".").encode("idna").decode()
    return len(name) <= _NAME_LENGTH_MAX and all(map(_LABEL.fullmatch, name.split(".")))


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
