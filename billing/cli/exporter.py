"""`billing exporter`: serves the metrics of the whole fleet until it is stopped: where there is no Flower."""

from __future__ import annotations

import ipaddress
import signal
from typing import Final
from urllib.parse import urlsplit

import click
from prometheus_client import CollectorRegistry, start_http_server

from billing.cli.context import find_app, settings
from billing.core.errors import InvalidValue
from billing.observability.metrics.fleet import FleetMetrics
from billing.observability.overview.watch import Watch
from billing.task.runtime import Runtime

_STOP_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
_ADDRESS: Final = "127.0.0.1:9808"
#: How long the first scrape waits for the first reading: less than Prometheus waits for a scrape.
_FIRST_SECONDS: Final = 6.0


@click.command(epilog="Example: billing exporter --address 127.0.0.1:9808")
@click.option("--address", default=_ADDRESS, show_default=True, help="host:port to listen on; [::1]:9808 for IPv6.")
def exporter(address: str) -> None:
    """Serve the metrics of the whole fleet for Prometheus at /metrics, until SIGTERM or Ctrl-C.

    How servers, holds, outbox, queues, laws and the report to Stripe stand, read every few seconds. No client is named
    in it. There is no authentication, as is usual for exporters: on another address than loopback let nobody but
    Prometheus in. Several exporters, or one beside Flower, say the same.
    """
    host, port = read_address(address)
    found = settings()
    app = find_app()
    # Blocked in every thread from here on, and taken below: a handler could come in the middle of a lock.
    signal.pthread_sigmask(signal.SIG_BLOCK, _STOP_SIGNALS)
    runtime = Runtime(lambda: found)
    watch = Watch(runtime, app)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(FleetMetrics(watch, wait_seconds=_FIRST_SECONDS))
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise InvalidValue("--address", address, f"cannot be listened on ({error.strerror or error})") from error
    watch.latest()
    shown = f"[{host}]" if ":" in host else host
    click.echo(f"metrics of the fleet: http://{shown}:{server.server_port}/metrics; Ctrl-C stops it")
    signal.sigwait(_STOP_SIGNALS)
    server.shutdown()
    server.server_close()
    thread.join()
    watch.close()
    runtime.close()


def read_address(address: str) -> tuple[str, int]:
    """Return host and port of `host:port`. Raises `InvalidValue`."""
    rule = "must be host:port, as 127.0.0.1:9808 or [::1]:9808"
    try:
        parts = urlsplit(f"//{address}")
        host, port = parts.hostname, parts.port
        if host and ":" in host:
            ipaddress.IPv6Address(host)
    except ValueError as error:
        raise InvalidValue("--address", address, rule) from error
    if not host or port is None or parts.path or parts.username is not None:
        raise InvalidValue("--address", address, rule)
    return host, port
