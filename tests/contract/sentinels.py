"""Starts a primary, its replica and three Sentinels of our own, on loopback, ended by their ids."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from billing.core.settings import Settings
from tests.contract.servers import SHARDS, Server, until

SERVICE = "mymaster"
SENTINEL_LOGIN = "sentinels-only"
#: How long a primary may be silent before it is taken for dead, where a test wants that, and where none does.
IMPATIENT_MS, PATIENT_MS = 1_000, 120_000
#: Sentinel's own periods, in ms: it looks and tells more often, and no pause of the machine makes it doubt its clock.
PERIODS = {"publish-period": 200, "info-period": 500, "ping-period": 200, "ask-period": 200, "tilt-trigger": 600_000}
CONFIGURATION = f"""\
port {{port}}
bind 127.0.0.1
dir {{folder}}
requirepass {SENTINEL_LOGIN}
sentinel monitor {SERVICE} 127.0.0.1 {{primary}} 2
sentinel down-after-milliseconds {SERVICE} {PATIENT_MS}
sentinel failover-timeout {SERVICE} 6000
sentinel sentinel-pass {SENTINEL_LOGIN}
"""


class Sentinel(Server):
    """A Sentinel process: the server's binary in another role."""

    def start(self, primary: int = 0) -> None:
        """Start it and wait until it answers."""
        path = Path(self._folder) / "sentinel.conf"
        path.write_text(CONFIGURATION.format(port=self.port, folder=self._folder, primary=primary))
        command = [self._binary, str(path), "--sentinel", "--logfile", f"{self._folder}/log"]
        self._process = subprocess.Popen(command)
        until(self._answers, f"a Sentinel on port {self.port} answers")
        for period, milliseconds in PERIODS.items():
            self.client().execute_command("SENTINEL", "DEBUG", period, milliseconds)

    def client(self, **options: Any) -> Any:
        """Return a client as the Sentinels' own user."""
        return super().client(**{"login": ("default", SENTINEL_LOGIN), **options})


class Watched:
    """Two servers, of which the first is the primary at first, and three Sentinels."""

    def __init__(self, binary: str, folder: str) -> None:
        made = [Path(folder) / name for name in ("a", "b", "s1", "s2", "s3")]
        for path in made:
            path.mkdir()
        options = ("--repl-diskless-sync-delay", "0")
        self.servers = [Server(binary, str(path), options=options) for path in made[:2]]
        self.sentinels = [Sentinel(binary, str(path)) for path in made[2:]]

    @property
    def url(self) -> str:
        """Where billing finds it."""
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis+sentinel://{hosts}/{SERVICE}/0?sentinel_password={SENTINEL_LOGIN}"

    def settings(self, **changes: Any) -> Settings:
        """Return settings that name it."""
        return Settings(**{"redis_url": self.url, "shards": SHARDS, **changes})

    def start(self) -> None:
        """Start everything, and wait until the Sentinels know of each other and of the replica."""
        primary, replica = self.servers
        primary.start()
        replica.start()
        replica.client().replicaof("127.0.0.1", primary.port)
        until(lambda: in_step(replica), "the replica has what the primary had")
        for sentinel in self.sentinels:
            sentinel.start(primary.port)
        until(lambda: all(map(self._complete, self.sentinels)), "the Sentinels know each other")

    def fail_over(self) -> None:
        """Have a dead primary replaced soon."""
        for sentinel in self.sentinels:
            sentinel.client().execute_command("SENTINEL", "SET", SERVICE, "down-after-milliseconds", IMPATIENT_MS)

    def end(self) -> None:
        """End everything."""
        for server in (*self.sentinels, *self.servers):
            server.end(signal.SIGKILL)

    @staticmethod
    def _complete(sentinel: Sentinel) -> bool:
        told = sentinel.client().execute_command("SENTINEL", "MASTER", SERVICE)
        state = dict(zip(told[::2], told[1::2], strict=True))
        return (state[b"num-other-sentinels"], state[b"num-slaves"]) == (b"2", b"1")


def in_step(replica: Server) -> bool:
    """Whether a replica has a link to its primary, and all that it had."""
    return replica.client().info("replication").get("master_link_status") == "up"


@contextmanager
def watched_started(binary: str) -> Iterator[Watched]:
    """Run them for a while, in a directory of their own."""
    with tempfile.TemporaryDirectory(prefix="billing-test-") as folder:
        watched = Watched(binary, folder)
        try:
            watched.start()
            yield watched
        finally:
            watched.end()
