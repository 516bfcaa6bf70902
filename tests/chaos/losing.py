"""What billing's Redis can lose: its data, its process, the end of its append-only file, all since a snapshot.

It is taken from a real server and its real files.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import redis

from billing.core.shards import shard_of
from billing.credits.keys import shard_keys
from billing.embedded.valkey import Valkey

_BASE, _INCREMENT = "appendonly.aof.1.base.rdb", "appendonly.aof.1.incr.aof"
#: A line of the append-only file that tells the second in which the commands behind it came.
_TIME = b"#TS:"


class Losing:
    """What a server can lose, and what has to be kept of it for that."""

    def __init__(self, server: Valkey) -> None:
        self._server = server
        self._kept: bytes | None = None

    @property
    def _data(self) -> Path:
        return self._server.directory / "data"

    def note_seconds(self, *, noted: bool = True) -> None:
        """Have the append-only file tell the seconds, in one file that is not written anew; or as it was."""
        with self._client() as client:
            client.config_set("aof-timestamp-enabled", "yes" if noted else "no")
            client.config_set("auto-aof-rewrite-percentage", "0" if noted else "100")

    def keep_snapshot(self) -> None:
        """Keep a snapshot of all the data, as it is now."""
        with self._client() as client:
            client.save()
        self._kept = (self._data / "dump.rdb").read_bytes()

    def everything(self) -> None:
        """`FLUSHALL`."""
        with self._client() as client:
            client.flushall()

    def bucket(self, client_id: str, shards: int) -> None:
        """Delete the bucket of one client, without which its grants mean nothing."""
        with self._client() as client:
            assert client.delete(shard_keys(shard_of(client_id, shards)).bucket + client_id) == 1

    def process(self) -> None:
        """SIGKILL."""
        self._server.kill()

    def last_second(self) -> bytes:
        """Cut off the append-only file, of a dead server, what came in its last second or two; return that."""
        (path,) = self._data.glob("appendonlydir/*.incr.aof")
        content = path.read_bytes()
        places = list(_seconds(content))
        assert len(places) >= 2, "the file tells no seconds"
        path.write_bytes(content[: places[-2]])
        return content[places[-2] :]

    def all_since_the_snapshot(self) -> None:
        """Put the snapshot in the place of all data of a dead server."""
        assert self._kept is not None
        folder = self._data / "appendonlydir"
        shutil.rmtree(folder)
        folder.mkdir()
        (folder / _BASE).write_bytes(self._kept)
        (folder / _INCREMENT).touch()
        lines = (f"file {_BASE} seq 1 type b", f"file {_INCREMENT} seq 1 type i", "")
        (folder / "appendonly.aof.manifest").write_text("\n".join(lines))

    def restart(self) -> None:
        """Start the server on what is left."""
        self._server.restart()

    @contextmanager
    def _client(self) -> Iterator[Any]:
        with redis.Redis.from_url(self._server.url) as client:
            yield client


def _seconds(content: bytes) -> Iterator[int]:
    """Yield where each second begins."""
    place = -1
    while (place := content.find(_TIME, place + 1)) >= 0:
        if place == 0 or content[place - 1] == ord("\n"):
            yield place
