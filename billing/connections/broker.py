"""The broker connection of billing's own: bounded where kombu's defaults wait for ever (L9).

Without timeouts a publish to a blocked RabbitMQ hangs, and so does the release of its connection. Confirms are
`billing.events.confirms`' own, so py-amqp's are not switched on.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Final

import kombu
from amqp.exceptions import AccessRefused
from kombu.exceptions import OperationalError

from billing.connections.amqp_buffered import Transport as BufferedTransport
from billing.core.errors import Unreachable
from billing.core.settings import Settings, without_password

_AMQP: Final = ("amqp", "amqps", "pyamqp")


def confirms(settings: Settings) -> bool:
    """Return whether this broker answers a publish with a confirm (RabbitMQ) or not (kombu's Redis transport)."""
    return settings.broker_url.split("://", 1)[0] in _AMQP


def connection(
    settings: Settings, *, heartbeat_seconds: float = 0, on_blocked: Callable[[str], None] | None = None
) -> kombu.Connection:
    """Return a connection for usage events; `open_once` connects it.

    `on_blocked` is called with a reason when RabbitMQ stops reading from this connection.
    """
    return kombu.Connection(
        settings.broker_url,
        connect_timeout=settings.publish_timeout_seconds,
        heartbeat=heartbeat_seconds,
        transport_options=bounds(settings, on_blocked),
        transport=BufferedTransport if settings.broker_url.startswith(("amqp:", "pyamqp:")) else None,
    )


def bounds(settings: Settings, on_blocked: Callable[[str], None] | None) -> dict[str, object]:
    """Return the transport's options that bound every read and write of a connection."""
    timeout = settings.publish_timeout_seconds
    if confirms(settings):
        return {"read_timeout": timeout, "write_timeout": timeout, "on_blocked": on_blocked}
    # Longer than the second for which kombu's Redis transport waits for a message in the server.
    return {"socket_timeout": timeout + 2.0, "socket_connect_timeout": timeout, "socket_keepalive": True}


def open_once(settings: Settings, connection: kombu.Connection) -> None:
    """Connect now, trying once: kombu would sleep and try again. Raises what `reaching` maps."""
    connection.ensure_connection(max_retries=0)
    if confirms(settings):
        raw = connection.connection
        # A timeout of the Python socket bounds every read and write. The kernel's, which py-amqp sets, does not bound
        # a read in the middle of a frame.
        raw.sock.settimeout(settings.publish_timeout_seconds)
        # py-amqp would poll the socket before each publish, and can spin there on half a frame.
        raw.client_properties.get("capabilities", {}).pop("connection.blocked", None)


def throw_away(settings: Settings, connection: kombu.Connection) -> None:
    """Close the sockets without a word to the server, which may not be listening. Never raises, hardly waits."""
    with suppress(Exception):
        if confirms(settings):
            connection.collect()
        else:
            connection.release()


@contextmanager
def reaching(settings: Settings, connection: kombu.Connection) -> Iterator[None]:
    """Map the transport's errors to `Unreachable`, naming the server without its password."""
    errors: tuple[type[BaseException], ...] = (
        *connection.connection_errors,
        *connection.channel_errors,
        OperationalError,
        OSError,
        AttributeError,  # py-amqp, when the connection is lost while it is being used
    )
    try:
        yield
    except errors as error:
        server = without_password(settings.broker_url)
        verb = "refuses the login" if isinstance(error, AccessRefused) else "does not answer"
        message = f"billing_broker_url: {server!r}: the broker {verb} ({type(error).__name__}: {error})"
        raise Unreachable(message) from error
