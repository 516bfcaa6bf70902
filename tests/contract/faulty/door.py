"""A way to a server that, when told, is cut before a request arrives, or after it was carried out, or for a while.

It carries one connection's requests and answers in turn, as one thread of billing's client sends them.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter, deque
from collections.abc import Iterator
from enum import Enum


class Cut(Enum):
    """Where a connection is cut."""

    REQUEST = "requests cut off before the server"
    ANSWER = "answers cut off after the write"
    HALF = "answers cut in half"


class Door:
    """Passes bytes; each cut that it is told of befalls the next request, or answer, once."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._due: deque[Cut] = deque()
        self._away = False
        #: How many of each kind there were.
        self.cuts: Counter[str] = Counter()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, where: Cut | None, *, away: bool = False) -> None:
        """Cut the next call there, or leave it alone; `away`: take no connection again until the call after it."""
        self._due.clear()
        self._away = False
        if where is not None:
            self._away = away
            self._due.append(where)

    def close(self) -> None:
        """Take no more connections."""
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                if self._away and not self._due:
                    self.cuts["connections refused"] += 1
                    client.close()
                    continue
                try:
                    server = socket.create_connection(("127.0.0.1", self._target))
                except OSError:  # it is down
                    client.close()
                    continue
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(client, server), daemon=True).start()

    def _is_due(self, *places: Cut) -> Cut | None:
        if not self._due or self._due[0] not in places:
            return None
        cut = self._due.popleft()
        self.cuts[cut.value] += 1
        return cut

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with _ending(server):
            while data := client.recv(65_536):
                if self._is_due(Cut.REQUEST):
                    client.shutdown(socket.SHUT_RDWR)
                    break
                server.sendall(data)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with _ending(client):
            while data := server.recv(65_536):
                cut = self._is_due(Cut.ANSWER, Cut.HALF)
                if cut is Cut.HALF:
                    client.sendall(data[: len(data) // 2])
                if cut is not None:
                    break
                client.sendall(data)


@contextlib.contextmanager
def _ending(end: socket.socket) -> Iterator[None]:
    """End a connection with the one that it passes on; closed alone it would stay while another thread waits on it."""
    with end:
        try:
            with contextlib.suppress(OSError):
                yield
        finally:
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def door_to(port: int) -> Iterator[Door]:
    """Yield a door in front of a server on loopback."""
    door = Door(port)
    try:
        yield door
    finally:
        door.close()
