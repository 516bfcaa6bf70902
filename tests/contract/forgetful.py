"""A door in front of a server that, when told, lets a request through and cuts the connection before the answer."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator


class Forgetful:
    """Passes bytes; after `lose()`, the next answer is lost with its connection, once."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._lose = threading.Event()
        self.lost = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def lose(self) -> None:
        """Lose the next answer."""
        self._lose.set()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._target))
                threading.Thread(target=self._ask, args=(client, server), daemon=True).start()
                threading.Thread(target=self._answer, args=(client, server), daemon=True).start()

    @staticmethod
    def _ask(client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := client.recv(65_536):
                server.sendall(data)
            server.shutdown(socket.SHUT_WR)

    def _answer(self, client: socket.socket, server: socket.socket) -> None:
        with contextlib.suppress(OSError), client, server:
            while data := server.recv(65_536):
                if self._lose.is_set():
                    self._lose.clear()
                    self.lost += 1
                    client.shutdown(socket.SHUT_RDWR)
                    return
                client.sendall(data)


@contextlib.contextmanager
def forgetful(port: int) -> Iterator[Forgetful]:
    """Yield a door in front of a server on loopback."""
    door = Forgetful(port)
    try:
        yield door
    finally:
        door.close()
