"""What keeps the buckets under test: Valkey (of the embedded extra), Redis 7 if it is installed, a cluster, the twin.

A module that says `ON_CLUSTER = False` is about one server: its port, its process, its counts. A test marked `raw`,
with the reason, looks past the contract at keys, commands or connections, of which the twin has none.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from billing.credits.verbs import Verbs
from tests.contract.billed_account import account
from tests.contract.clusters import ClusterServer, cluster_started
from tests.contract.metering import customer, meter, send
from tests.contract.servers import BINARIES, Server, started
from tests.contract.targets import target
from tests.contract.twins import TwinServer

__all__ = ["account", "customer", "meter", "send", "target"]

CLUSTER = "cluster"
TWIN = "twin"


def binary_or_skip(kind: str) -> str:
    """Return the binary of a kind of server; what is missing is skipped on a laptop and fails under CI=true."""
    binary = BINARIES[kind]()
    if binary is None:
        message = f"{kind}: no server is installed, so that its contract is not checked"
        if os.environ.get("CI") == "true":
            pytest.fail(message)
        pytest.skip(message)
    return binary


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run each test on every kind of server; on the cluster and on the twin unless it says otherwise."""
    if "server" in metafunc.fixturenames:
        cluster = [CLUSTER] if getattr(metafunc.module, "ON_CLUSTER", True) else []
        raw = metafunc.definition.get_closest_marker("raw")
        twin = [] if raw else [TWIN]
        metafunc.parametrize("server", [*BINARIES, *cluster, *twin], indirect=True, scope="session")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave one seed of each random walk to the cluster: the scripts are the same, and each step goes further."""

    def wanted(item: pytest.Item) -> bool:
        given = item.callspec.params if isinstance(item, pytest.Function) and hasattr(item, "callspec") else {}
        return given.get("server") != CLUSTER or not given.get("seed")

    left_out = [item for item in items if not wanted(item)]
    items[:] = [item for item in items if wanted(item)]
    config.hook.pytest_deselected(items=left_out)


@pytest.fixture(scope="session")
def server(request: pytest.FixtureRequest) -> Iterator[Server | ClusterServer | TwinServer]:
    """Start a server, or a cluster, that the session's tests share; or the twin, which is nothing to start."""
    if request.param == TWIN:
        yield TwinServer()
        return
    if request.param == CLUSTER:
        with cluster_started(binary_or_skip("valkey")) as cluster:
            yield cluster
        return
    with started(binary_or_skip(request.param)) as running:
        yield running


@pytest.fixture(scope="module")
def cluster() -> Iterator[ClusterServer]:
    """Start a cluster for a module; each test leaves it whole."""
    with cluster_started(binary_or_skip("valkey")) as running:
        yield running


@pytest.fixture
def buckets(server: Server) -> Verbs:
    """Empty the server and return buckets on it, verified."""
    server.flush()
    return server.buckets()


@pytest.fixture(params=list(BINARIES))
def own_server(request: pytest.FixtureRequest) -> Iterator[Server]:
    """Start a server for one test, which may kill it."""
    with started(binary_or_skip(request.param)) as running:
        yield running
