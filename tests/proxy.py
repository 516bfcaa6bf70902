"""A door in front of a real server, which a test can cut, freeze and delay, and open again: faults of the network."""

from __future__ import annotations

import contextlib
import itertools
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65_536


class Proxy:
    """Passes bytes between a free port on loopback and a server. `port` is where it listens."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._open = threading.Event()
        self._flows = threading.Event()
        self._ended = threading.Event()
        self._heard = threading.Event()
        self._delay_seconds = 0.0
        self._open.set()
        self._flows.set()
        self._heard.set()
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._numbers = itertools.count()
        threading.Thread(target=self._accept, daemon=True).start()

    def url_through(self, url: str) -> str:
        """Return a server's URL with this door in the place of its host and port."""
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        place = f"127.0.0.1:{self.port}"
        return urlunsplit(parts._replace(netloc=f"{login}@{place}" if login else place))

    def cut(self) -> None:
        """End every connection; new ones still come through."""
        with self._lock:
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                with contextlib.suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def shut(self) -> None:
        """End every connection, and every new one at once: the server is down."""
        with self._lock:
            self._open.clear()
        self.cut()

    def half_open(self) -> None:
        """End every connection at the server's end alone: no client hears of it before the proxy is opened again."""
        with self._lock:
            self._heard.clear()
            pairs = list(self._pairs)
        for _, server in pairs:
            with contextlib.suppress(OSError):
                server.shutdown(socket.SHUT_RDWR)

    def delay(self, seconds: float) -> None:
        """Let everything that passes take so much longer."""
        self._delay_seconds = seconds

    def reopen(self) -> None:
        """Let connections and bytes through again."""
        self._delay_seconds = 0.0
        self._open.set()
        self._flows.set()
        self._heard.set()

    def freeze(self) -> None:
        """Keep connections, pass no byte: the server, or the way to it, hangs."""
        self._flows.clear()

    def close(self) -> None:
        """End the proxy."""
        self._ended.set()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes who waits in `accept`
        self._listener.close()
        self.reopen()
        self.cut()

    def passing(self, connection: int, data: bytes, *, to_server: bool) -> None:
        """Be told of bytes of a connection before they go on; who counts them overrides this."""

    def _accept(self) -> None:
        while not self._ended.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                continue
            if not self._open.is_set():
                client.close()
                continue
            try:
                server = socket.create_connection(self._target)
            except OSError:
                client.close()
                continue
            with self._lock:
                # Looked at again, in one step with taking it in: none slips through while the proxy is being shut.
                if not self._open.is_set() or self._ended.is_set():
                    client.close()
                    server.close()
                    continue
                self._pairs.append((client, server))
            threading.Thread(target=self._pass, args=(next(self._numbers), client, server), daemon=True).start()

    def _pass(self, connection: int, client: socket.socket, server: socket.socket) -> None:
        with client, server, selectors.DefaultSelector() as ready:
            ready.register(client, selectors.EVENT_READ, server)
            ready.register(server, selectors.EVENT_READ, client)
            with contextlib.suppress(OSError):
                while self._passed(ready, connection, server):
                    pass
            self._heard.wait()
        with self._lock, contextlib.suppress(ValueError):  # cut connections are forgotten already
            self._pairs.remove((client, server))

    def _passed(self, ready: selectors.BaseSelector, connection: int, server: socket.socket) -> bool:
        """Pass on what has come; return whether both ends are still there."""
        for key, _ in ready.select():
            self._flows.wait()
            assert isinstance(key.fileobj, socket.socket)
            data = key.fileobj.recv(CHUNK)
            if not data:
                return False
            self.passing(connection, data, to_server=key.data is server)
            if self._delay_seconds:
                time.sleep(self._delay_seconds)
            key.data.sendall(data)
        return True


@contextlib.contextmanager
def in_front_of(url: str) -> Iterator[tuple[Proxy, str]]:
    """Yield a proxy of the server of `url`, and the URL that goes through it."""
    proxy = Proxy(*address_of(url))
    try:
        yield proxy, proxy.url_through(url)
    finally:
        proxy.close()


def address_of(url: str) -> tuple[str, int]:
    """Return host and port of a server's URL, which names both."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    return parts.hostname, parts.port
