"""A receiver of webhooks: a real HTTP server that notes what it got, answers as told, verifies signatures itself."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


@dataclass(frozen=True, kw_only=True)
class Received:
    """One call."""

    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        """What a receiver drops repeats by."""
        return self.headers["webhook-id"]

    @property
    def message(self) -> dict[str, Any]:
        """The body, read."""
        message: dict[str, Any] = json.loads(self.body)
        return message

    def is_signed_by(self, secret: str) -> bool:
        """Whether the signature is that of Standard Webhooks, computed here from the standard's text."""
        scheme, _, key = secret.partition("_")
        signed = f"{self.message_id}.{self.headers['webhook-timestamp']}.".encode() + self.body
        digest = hmac.new(base64.b64decode(key), signed, hashlib.sha256).digest()
        return scheme == "whsec" and self.headers["webhook-signature"] == "v1," + base64.b64encode(digest).decode()


@dataclass
class Receiver:
    """What the server knows and does. `statuses` are answered in turn, the last one for ever."""

    url: str = ""
    calls: list[Received] = field(default_factory=list)
    statuses: list[int] = field(default_factory=lambda: [204])
    #: While it is not set, a call is noted and not answered.
    answers: threading.Event = field(default_factory=threading.Event)


@contextmanager
def receiving(*statuses: int, hanging: bool = False) -> Iterator[Receiver]:
    """Run a receiver on loopback."""
    receiver = Receiver(statuses=list(statuses) or [204])
    if not hanging:
        receiver.answers.set()

    class Handler(BaseHTTPRequestHandler):
        timeout = 120

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            receiver.calls.append(Received(path=self.path, headers=headers, body=body))
            receiver.answers.wait(120)
            status = receiver.statuses.pop(0) if len(receiver.statuses) > 1 else receiver.statuses[0]
            self.send_response(status)
            if 300 <= status < 400:
                self.send_header("location", f"{receiver.url}/elsewhere")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the signature is the standard library's
            """Say nothing."""

        def handle(self) -> None:
            """Let a caller hang up."""
            try:
                super().handle()
            except ConnectionError:
                self.close_connection = True

    class Server(ThreadingHTTPServer):
        request_queue_size = 128

    server = Server(("127.0.0.1", 0), Handler)
    receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield receiver
    finally:
        receiver.answers.set()
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def pouring(first: bytes, then: bytes) -> Iterator[str]:
    """Run a receiver that answers without end; yield its URL."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def pour() -> None:
            connection, _ = server.accept()
            with connection, suppress(OSError):
                connection.sendall(first)
                while True:
                    connection.sendall(then)

        thread = threading.Thread(target=pour)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/"
        thread.join()
