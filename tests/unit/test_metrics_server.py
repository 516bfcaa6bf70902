"""Metrics are served by one thread, within bounds, and by nobody else (L9)."""

from __future__ import annotations

import os
import signal
import socket
import threading
from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from billing.observability.metrics import serving
from billing.observability.metrics.serving import MetricsServer


class One(Collector):
    """Says 1."""

    def __init__(self) -> None:
        self.asked_by: list[threading.Thread] = []

    def collect(self) -> Iterator[Metric]:
        """Say it."""
        self.asked_by.append(threading.current_thread())
        yield GaugeMetricFamily("one", "One", value=1)


@pytest.fixture
def one() -> One:
    return One()


@pytest.fixture
def server(one: One) -> Iterator[MetricsServer]:
    server = MetricsServer("127.0.0.1:0", one)
    server.start()
    yield server
    server.close()


def get(server: MetricsServer) -> str:
    return httpx.get(server.url, timeout=60, trust_env=False).text


def test_who_asks_and_then_says_nothing_keeps_nobody_else_waiting(
    server: MetricsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given connections that send nothing, or half a request, then others are answered after a bound."""
    monkeypatch.setattr(serving._Handler, "timeout", 0.05)
    address = "127.0.0.1", server._server.server_port
    with socket.create_connection(address), socket.create_connection(address) as half:
        half.sendall(b"GET /metr")
        assert "one 1.0" in get(server)


def test_no_thread_is_begun_for_a_request(server: MetricsServer, one: One) -> None:
    """A fork of the pool must find no lock taken that its child needs."""
    for _ in range(3):
        get(server)
    assert one.asked_by == [threading.current_thread(), *[server._thread] * 3]


def test_an_address_is_taken_before_it_is_answered_and_a_forked_child_lets_go_of_it() -> None:
    """Whoever asks meanwhile waits; once its owner has gone the address is free, whatever children still run."""
    server = MetricsServer("127.0.0.1:0", One())
    address = server._server.server_address
    with pytest.raises(OSError, match="in use"):
        socket.create_server(("127.0.0.1", int(address[1])), reuse_port=False)
    abandoned, tells = os.pipe()
    child = os.fork()
    if not child:
        server.abandon()
        os.write(tells, b"x")
        threading.Event().wait()
    try:
        os.read(abandoned, 1)
        server.start()
        assert "one 1.0" in get(server)
        server.close()
        socket.create_server(("127.0.0.1", int(address[1]))).close()
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(abandoned)
        os.close(tells)


def test_it_is_served_on_ipv6_too() -> None:
    server = MetricsServer("[::1]:0", One())
    server.start()
    assert server.url.startswith("http://[::1]:")
    assert "one 1.0" in get(server)
    server.close()
