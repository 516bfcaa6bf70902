"""A server for each test session and kind: Valkey (the embedded one) and Redis 7, when it is installed."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from tests.contract.servers import REDIS, VALKEY, Server, started

KINDS = {"valkey": VALKEY, "redis7": REDIS}


@pytest.fixture(scope="session", params=list(KINDS))
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """A server that the whole session shares; `clean` empties it."""
    kind: str = request.param
    binary = KINDS[kind]()
    if binary is None:
        message = f"{kind}: no server binary is installed, so its contract is not checked"
        if kind == "valkey" and os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    with started(binary) as running:
        yield running


@pytest.fixture
def clean(server: Server) -> Server:
    """The server, emptied."""
    server.client().flushall()
    return server
