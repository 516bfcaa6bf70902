"""The stand-in for Stripe as one of the stack's servers: a guarded child.

Guarantee: loopback only; its file in the stack's directory keeps what it answered, SIGKILL included. It has no
password: it takes any test key, and holds nothing but the stack's own usage.
"""

from __future__ import annotations

import http.client
import os
import sys
from pathlib import Path
from typing import ClassVar, Final

from billing.embedded.process import Child
from billing.embedded.server import LOOPBACK, Server

_PROBE_SECONDS: Final = 2.0


class StripeSandbox(Server):
    """One stand-in for Stripe."""

    name: ClassVar[str] = "stripe"

    @property
    def url(self) -> str:
        """What billing calls instead of Stripe."""
        return f"http://{LOOPBACK}:{self.port}"

    def _prepare(self) -> None:
        self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.directory / "data").mkdir(mode=0o700, exist_ok=True)

    def _spawn(self) -> Child:
        file = self.directory / "data" / "sandbox.sqlite3"
        command = [sys.executable, "-m", "billing.sinks.stripe.sandbox", str(self.port), str(file)]
        return Child.spawn(self.name, command, environ=dict(os.environ), cwd=Path.cwd(), log=self.log, hold=self._hold)

    def _probe(self) -> bool:
        connection = http.client.HTTPConnection(LOOPBACK, self.port, timeout=_PROBE_SECONDS)
        try:
            connection.request("GET", "/sandbox/knobs")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):  # refused, or not yet listening
            return False
        finally:
            connection.close()

    def _wipe(self) -> None:
        self._remove("data")
