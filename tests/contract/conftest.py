"""A server of each kind for the session: Valkey (of the embedded extra) and Redis 7, where it is installed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from billing.credits.buckets import Buckets
from tests.contract.servers import BINARIES, Server, started


def binary_or_skip(kind: str) -> str:
    """Return the binary of a kind of server; what is missing is skipped on a laptop and fails under CI=true."""
    binary = BINARIES[kind]()
    if binary is None:
        message = f"{kind}: no server is installed, so that its contract is not checked"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return binary


@pytest.fixture(scope="session", params=list(BINARIES))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Start a server that the session's tests share."""
    with started(binary_or_skip(request.param)) as running:
        yield running


@pytest.fixture
def buckets(server: Server) -> Buckets:
    """Empty the server and return buckets on it, verified."""
    server.client().flushall()
    return server.buckets()


@pytest.fixture(params=list(BINARIES))
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Start a server for one test, which may kill it."""
    with started(binary_or_skip(request.param)) as running:
        yield running
