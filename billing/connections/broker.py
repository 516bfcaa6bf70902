"""The broker connection of billing's own: confirms and timeouts that would slow Celery's other messages.

Without `read_timeout` and `write_timeout` a publish to a blocked RabbitMQ hangs for ever, and so does the release of
its connection.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import kombu
from kombu.exceptions import OperationalError

from billing.core.errors import Unreachable
from billing.core.settings import Settings, without_password

_AMQP: Final = ("amqp", "amqps", "pyamqp")


def confirms(settings: Settings) -> bool:
    """Return whether this broker answers a publish with a confirm (RabbitMQ) or not (kombu's Redis transport)."""
    return settings.broker_url.split("://", 1)[0] in _AMQP


def connection(settings: Settings, *, heartbeat_seconds: float = 0, consuming: bool = False) -> kombu.Connection:
    """Return a connection for usage events; it connects at its first use.

    A consuming connection keeps no read timeout of its own: `drain_events` brings one with each call.
    """
    options: dict[str, object] = {}
    if confirms(settings):
        options = {"confirm_publish": True, "write_timeout": settings.publish_timeout_seconds}
        if not consuming:
            options["read_timeout"] = settings.publish_timeout_seconds
    return kombu.Connection(
        settings.broker_url,
        connect_timeout=settings.publish_timeout_seconds,
        heartbeat=heartbeat_seconds,
        transport_options=options,
    )


@contextmanager
def reaching(settings: Settings, connection: kombu.Connection) -> Iterator[None]:
    """Map the transport's errors to `Unreachable`, naming the server without its password."""
    try:
        yield
    except (*connection.connection_errors, *connection.channel_errors, OperationalError, OSError) as error:
        server = without_password(settings.broker_url)
        message = f"billing_broker_url: {server!r}: the broker does not answer ({type(error).__name__}: {error})"
        raise Unreachable(message) from error
