"""A connection to the broker of an app's tasks, which need not be that of the usage events: bounded as theirs is (L9).

It is made as the app makes its own (address, TLS, `broker_transport_options`), so that what is published by it arrives
where the app's workers look.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import celery
import kombu

from billing.connections import broker
from billing.core.settings import Settings


def settings_for(app: celery.Celery, settings: Settings) -> Settings:
    """Return settings whose broker is that of the app's tasks; of several servers the first is named."""
    return dataclasses.replace(settings, broker_url=url_of(app).split(";", 1)[0])


def url_of(app: celery.Celery) -> str:
    """Return where the app publishes its tasks."""
    return str(app.conf.broker_write_url or "amqp://")


def connection(app: celery.Celery, settings: Settings, on_blocked: Callable[[str], None]) -> kombu.Connection:
    """Return a connection by `settings_for`'s settings; `open_any` connects it."""
    made: kombu.Connection = app.connection_for_write(
        connect_timeout=settings.publish_timeout_seconds,
        heartbeat=0,
        transport_options=broker.bounds(settings, on_blocked) | {"confirm_publish": False},
    )
    return made


def open_any(settings: Settings, connection: kombu.Connection) -> None:
    """Connect now, trying each server once. Raises what `broker.reaching` maps."""
    others = max(0, len(connection.alt) - 1)
    connection.ensure_connection(max_retries=others, interval_start=0, interval_step=0)
    broker.open_once(settings, connection)
