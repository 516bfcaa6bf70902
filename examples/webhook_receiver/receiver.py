"""Receives billing's alerts: verified, each once. `python receiver.py PORT`, the secret in `WEBHOOK_SECRET`.

What is forged, altered, or older than five minutes is refused with 400, and does nothing. What comes a second time is
answered as the first time and does nothing either: billing sends again what it got no answer to.
"""

from __future__ import annotations

import json
import os
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from standardwebhooks.webhooks import Webhook, WebhookVerificationError

LENGTH_MAX = 65_536
SECONDS_MAX = 10


class Inbox:
    """The messages that were taken, by their ids: on disk, so that a restart takes none twice."""

    def __init__(self, path: str, secret: str) -> None:
        self._path, self._webhook = path, Webhook(secret)
        with self._open() as books:
            books.execute("CREATE TABLE IF NOT EXISTS taken (webhook_id TEXT PRIMARY KEY)")

    def take(self, headers: dict[str, str], body: bytes) -> str:
        """Do what a message asks for, once. Raises `ValueError` for what billing did not send just now."""
        try:
            message = self._webhook.verify(body, headers)
        except WebhookVerificationError as error:
            raise ValueError(str(error)) from error
        # The message's own effect belongs into this very transaction.
        with self._open() as books:
            new = books.execute("INSERT OR IGNORE INTO taken VALUES (?)", (headers["webhook-id"],)).rowcount
            if new:
                act(message)
        return "taken" if new else "taken before"

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self._path, timeout=SECONDS_MAX)


def act(message: dict[str, Any]) -> None:
    """Do something about it: mail somebody, buy credits, stop sending work."""
    print(f"{message['type']} {json.dumps(message['data'])}", flush=True)


def serve(port: int, inbox: Inbox) -> None:
    """Answer until the process ends."""

    class Handler(BaseHTTPRequestHandler):
        timeout = SECONDS_MAX

        def do_POST(self) -> None:
            length = self.headers.get("content-length", "")
            if not length.isdecimal() or int(length) > LENGTH_MAX:
                return self._answer(413, "too long")
            headers = {name.lower(): value for name, value in self.headers.items()}
            try:
                said = inbox.take(headers, self.rfile.read(int(length)))
            except ValueError as error:
                print(f"refused: {error}", flush=True)
                return self._answer(400, "refused")
            if said != "taken":
                print(f"{said}: {headers['webhook-id']}", flush=True)
            return self._answer(200, said)

        def _answer(self, status: int, text: str) -> None:
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
            """Say nothing of each call: what matters is printed above."""

    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    print(f"ready; post to http://127.0.0.1:{server.server_port}/alerts", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    serve(int(sys.argv[1]), Inbox("taken.sqlite", os.environ["WEBHOOK_SECRET"]))
