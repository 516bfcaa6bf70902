"""Starts a cluster of our own: three primaries and a replica of each, on loopback, ended by their ids."""

from __future__ import annotations

import functools
import signal
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import redis

from billing.connections.cluster import Cluster
from billing.connections.redis import Client, connect
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.embedded.server import free_port
from tests.contract.making import a_client
from tests.contract.servers import LEASE_SECONDS, SHARDS, Server, until

#: A client of each shard.
CLIENTS = {shard: next(f"c{n}" for n in range(100) if shard_of(f"c{n}", SHARDS) == shard) for shard in range(SHARDS)}
PRIMARIES = 3
SLOTS = 16_384
#: How long a node may be silent before the others replace it, where a test wants that, and where none does.
IMPATIENT_MS, PATIENT_MS = 1_500, 120_000
OPTIONS = (
    f"--cluster-enabled yes --cluster-node-timeout {IMPATIENT_MS} --cluster-require-full-coverage no "
    "--repl-diskless-sync-delay 0 --cluster-allow-replica-migration no --cluster-replica-validity-factor 0"
)


class ClusterClient(Cluster):
    """Billing's client of a cluster, which for the tests' own questions knows every command of redis-py's as well."""

    def __getattr__(self, name: str) -> Any:
        """Return what redis-py's cluster client has."""
        return getattr(self._topology(), name)

    def keys(self, pattern: str) -> Any:
        """Return the keys of all nodes; redis-py asks one."""
        topology: Any = self._topology()
        return topology.keys(pattern, target_nodes=topology.PRIMARIES)


class ClusterServer:
    """Six nodes: the first three are primaries at first, each of the others the replica of one."""

    shards = SHARDS

    def __init__(self, binary: str, folder: str) -> None:
        self.nodes: list[Server] = []
        for number in range(2 * PRIMARIES):
            own = Path(folder) / str(number)
            own.mkdir()
            bus = free_port()
            self.nodes.append(Server(binary, str(own), options=[*OPTIONS.split(), "--cluster-port", str(bus)]))
            self.nodes[-1].bus_port = bus

    @property
    def url(self) -> str:
        """Where billing finds it."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    def settings(self, **changes: Any) -> Settings:
        """Return settings that name it."""
        return Settings(**{"redis_url": self.url, "redis_timeout_seconds": 60.0, "shards": SHARDS, **changes})

    def start(self) -> None:
        """Start the nodes and join them."""
        for node in self.nodes:
            node.start()
        clients: list[Any] = [node.client() for node in self.nodes]
        each = -(-SLOTS // PRIMARIES)
        for number, client in enumerate(clients):
            client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
            if number < PRIMARIES:
                last = min(SLOTS, (number + 1) * each) - 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", number * each, last)
            for node in self.nodes[:number]:
                client.execute_command("CLUSTER", "MEET", "127.0.0.1", node.port, node.bus_port)
        until(lambda: all(self._knows(client) == len(self.nodes) for client in clients), "the nodes meet")
        ids = [client.execute_command("CLUSTER", "MYID").decode() for client in clients]
        for number, client in enumerate(clients[PRIMARIES:]):
            until(functools.partial(_replicates, client, ids[number]), "a replica finds its primary")
        until(self.healthy, "the cluster is whole")
        self.be_patient()

    def be_patient(self) -> None:
        """Have no pause of a busy machine pass for a node's death. A node that was started again has to be told."""
        self._tolerate(PATIENT_MS)

    @contextmanager
    def failing_over(self) -> Iterator[None]:
        """Have a dead node replaced soon."""
        self._tolerate(IMPATIENT_MS)
        try:
            yield
        finally:
            self.be_patient()

    def healthy(self) -> bool:
        """Whether all slots are served, and every node says that each primary has a replica which has all it had."""
        for node in self.nodes:
            client: Any = node.client()
            replication = client.info("replication")
            ready = replication["role"] == "master" or replication["master_link_status"] == "up"
            state = client.execute_command("CLUSTER INFO")["cluster_state"]
            if not ready or state != "ok" or len(client.execute_command("CLUSTER SLOTS")) != PRIMARIES:
                return False
        return True

    def end(self) -> None:
        """End every node."""
        for node in self.nodes:
            node.end(signal.SIGKILL)

    def primary_of(self, shard: int) -> Server:
        """Return the node that has a shard now."""
        client = self.client()
        node = client.get_node_from_key(f"{{billing:{shard}}}:server")
        return next(server for server in self.nodes if server.port == node.port)

    def client(self, *, retries: int = 1, login: tuple[str, str] | None = None) -> Any:
        """Return a client that bounds its waits and sends a lost call again."""
        url = self.url.replace("://", f"://{login[0]}:{login[1]}@") if login else self.url
        client = connect(self.settings(redis_url=url, redis_retries=retries))
        client.__class__ = ClusterClient
        return client

    @functools.cached_property
    def hand(self) -> Any:
        """A client for what a test does to the cluster itself."""
        return self.client()

    def tag_of(self, client_id: str) -> str:
        """Return what the keys of a client's shard begin with."""
        return Server.tag_of(self, client_id)  # type: ignore[arg-type]

    def flush(self) -> None:
        """Lose everything."""
        self.client().flushall()

    def lose_bucket(self, client_id: str) -> None:
        """Lose one client's bucket; the holds that it lent to stay."""
        Server.lose_bucket(self, client_id)  # type: ignore[arg-type]

    def lose_string(self, client_id: str) -> None:
        """Lose what one client's bucket has available; what it was granted stays, and the holds."""
        Server.lose_string(self, client_id)  # type: ignore[arg-type]

    def end_lease(self, client_id: str, run_id: UUID) -> None:
        """Let a hold's deadline have passed, in a shard that is swept without a pause."""
        Server.end_lease(self, client_id, run_id)  # type: ignore[arg-type]

    def end_grant(self, client_id: str, grant_id: int) -> None:
        """Let the time be over of a grant that has an end and is in use: nothing was swept since."""
        Server.end_grant(self, client_id, grant_id)  # type: ignore[arg-type]

    def contents(self) -> dict[object, object]:
        """Return everything that it holds."""
        return Server.contents(self)  # type: ignore[arg-type]

    def buckets(
        self,
        *,
        client: Client | None = None,
        lease_seconds: float = LEASE_SECONDS,
        settled_retention_seconds: float = 3_600.0,
        outbox_entries_max: int = 10_000,
        alert_percents: Sequence[int] = (20, 5),
        verified: bool = True,
    ) -> Buckets:
        """Return buckets on this cluster, its shards verified."""
        return Server.buckets(
            self,  # type: ignore[arg-type]
            client=client,
            lease_seconds=lease_seconds,
            settled_retention_seconds=settled_retention_seconds,
            outbox_entries_max=outbox_entries_max,
            alert_percents=alert_percents,
            verified=verified,
        )

    def _tolerate(self, milliseconds: int) -> None:
        for node in self.nodes:
            with suppress(redis.ConnectionError):  # it is dead
                node.client(retries=0).config_set("cluster-node-timeout", milliseconds)

    @staticmethod
    def _knows(client: Any) -> int:
        nodes: Any = client.execute_command("CLUSTER NODES")
        return sum("handshake" not in node["flags"] for node in nodes.values())


def _replicates(client: Any, primary: str) -> bool:
    try:
        client.execute_command("CLUSTER", "REPLICATE", primary)
    except redis.ResponseError:  # it has not heard of that node's slots yet
        return False
    return True


@contextmanager
def cluster_started(binary: str) -> Iterator[ClusterServer]:
    """Run a cluster for a while, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="billing-test-") as folder:
        cluster = ClusterServer(binary, folder)
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.end()


def neighbours(cluster: ClusterServer) -> tuple[int, int]:
    """Return two shards on different nodes."""
    first = cluster.primary_of(0).port
    return 0, next(shard for shard in range(SHARDS) if cluster.primary_of(shard).port != first)


@contextmanager
def clients_on_each_shard(cluster: ClusterServer) -> Iterator[Buckets]:
    """Empty a cluster once it is whole, and have a client of 100 credits on each shard."""
    until(cluster.healthy, "the cluster is whole")
    cluster.client().flushall()
    with closing(connect(cluster.settings())) as client:
        made = cluster.buckets(client=client)
        for client_id in CLIENTS.values():
            a_client(made, 100, client_id=client_id)
        yield made
