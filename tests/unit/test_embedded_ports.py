"""The ports of embedded servers: free, each told once, and none that systems lend to outgoing connections."""

from __future__ import annotations

import socket

from billing.embedded import server
from billing.embedded.server import free_port


def test_ports_are_told_once_and_lie_below_those_of_outgoing_connections() -> None:
    """Given many servers that have not begun to listen yet, then no two are told the same port."""
    ports = [free_port() for _ in range(200)]
    assert len(set(ports)) == 200
    assert {port in server._PORTS for port in ports} == {True}
    # IANA's range of such ports begins at 49,152, Linux' at 32,768.
    assert server._PORTS[-1] < 32_768


def test_a_port_that_somebody_listens_on_is_not_free() -> None:
    with socket.create_server((server.LOOPBACK, free_port())) as taken:
        port = taken.getsockname()[1]
        assert not server._is_free(port)
    assert server._is_free(port)
