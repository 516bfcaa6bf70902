"""Serves metrics over HTTP from one thread, at an address that one process has for itself.

The address is taken when the server is made, before a pool forks; it is answered from `start` on. It refuses an address
that cannot be listened on. One request at a time, within a bound: no thread is begun for a request, so that whatever a
pool forks meanwhile finds no lock taken that it needs.
"""

from __future__ import annotations

import logging
import socket
import socketserver
import threading
from typing import Any, Final
from urllib.parse import urlsplit
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from prometheus_client import CollectorRegistry, generate_latest, make_wsgi_app
from prometheus_client.registry import Collector

from billing.core.errors import InvalidValue

logger = logging.getLogger(__name__)

#: How long whoever asks may be silent (L9). Prometheus sends its request at once.
_SILENT_SECONDS: Final = 2.0


class MetricsServer:
    """Serves what collectors say until it is closed."""

    def __init__(self, address: str, *collectors: Collector) -> None:
        """Take `address` (host:port). Raises `InvalidValue` where that cannot be done."""
        self._registry = CollectorRegistry(auto_describe=False)
        for collector in collectors:
            self._registry.register(collector)
        parts = urlsplit(f"//{address}")
        try:
            self._server = _listening(parts.hostname or "", parts.port or 0)
        except OSError as error:
            reason = f"cannot be listened on ({error.strerror or error})"
            raise InvalidValue("billing_metrics_address", address, reason) from error
        self._server.set_app(make_wsgi_app(self._registry))
        host, port = self._server.server_address[:2]
        shown = f"[{host!s}]" if ":" in str(host) else str(host)
        self.url = f"http://{shown}:{port}/metrics"
        self._thread = threading.Thread(target=self._server.serve_forever, name="billing-metrics", daemon=True)

    def add(self, collector: Collector) -> None:
        """Serve what another collector says, too."""
        self._registry.register(collector)

    def start(self) -> None:
        """Answer from now on."""
        # What the first scrape imports is imported now: an import that a fork cuts through is never over in the child.
        generate_latest(self._registry)
        self._thread.start()

    def close(self) -> None:
        """Stop listening."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()

    def abandon(self) -> None:
        """Let go of the address: this process was forked from the one that answers there."""
        self._server.socket.close()


class _Server(WSGIServer):
    # More than one of Prometheus may ask at a time.
    request_queue_size = 64

    def server_bind(self) -> None:
        """Bind, and ask no name server who we are."""
        # Not the parent's, which does.
        socketserver.TCPServer.server_bind(self)
        host, self.server_port = self.server_address[:2]
        self.server_name = str(host)
        self.setup_environ()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 - the signature is socketserver's
        """Whoever asked has gone, or said nothing."""
        logger.debug("billing: a request for metrics was not answered")


class _Handler(WSGIRequestHandler):
    timeout = _SILENT_SECONDS

    def log_message(self, *_: object) -> None:
        """Log no request."""


def _listening(host: str, port: int) -> WSGIServer:
    family = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0][0]

    class Server(_Server):
        address_family = family

    return Server((host, port), _Handler)
