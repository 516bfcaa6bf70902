"""Where Flower may listen: it shows what every client does, so beyond loopback only with authentication.

Pure, and without a look-up of names: a name may mean something else tomorrow.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence
from typing import Final

from billing.core.errors import InvalidValue

LOOPBACK: Final = "127.0.0.1"

_RULE: Final = (
    "is not loopback, and Flower shows the work of every client: give it authentication (--basic_auth, or --auth with "
    "--auth_provider), or listen on 127.0.0.1 or --unix_socket"
)


def check_access(*, address: str, unix_socket: str, authenticated: bool) -> InvalidValue | None:
    """Return why Flower may not listen there, or None. An empty address is every address of the machine."""
    if authenticated or unix_socket or is_loopback(address):
        return None
    return InvalidValue("address", address, _RULE)


def asks_who(*, basic_auth: Sequence[str] | None, auth: str | None) -> bool:
    """Return whether Flower has everybody say who they are: an empty variable or password is none."""
    return bool(auth) or bool(basic_auth and all(_has_password(pair) for pair in basic_auth))


def _has_password(pair: str) -> bool:
    user, _, password = pair.partition(":")
    return bool(user and password)


def is_loopback(address: str) -> bool:
    """Return whether an address is loopback for certain; of names only `localhost` is."""
    if address == "localhost":
        return True
    try:
        return ipaddress.ip_address(address).is_loopback
    except ValueError:
        return False
