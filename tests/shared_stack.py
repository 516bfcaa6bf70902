"""Lends the servers of one process to the tests of another, so that many short runs need not start them each.

Who borrows must not kill or restart a server, and runs alone on it. Whose variable is not set starts its own.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Final

from billing.embedded.endpoints import Endpoints
from billing.embedded.stack import Stack

#: Names the file that `lend` wrote.
VARIABLE: Final = "LENT_STACK_FILE"


def lend(stack: Stack, file: Path) -> None:
    """Write down where a running stack is; its passwords stay in its own directory."""
    epmd_port = 0 if stack.rabbitmq is None else stack.rabbitmq._epmd_port
    file.write_text(json.dumps({"directory": str(stack.directory), "epmd_port": epmd_port}))


def borrowed() -> Stack | None:
    """Return the stack that the environment names, as if it had been started here; None where it names none."""
    named = os.environ.get(VARIABLE)
    if not named:
        return None
    found = json.loads(Path(named).read_text())
    stack = Stack(fast=True)
    for server in stack.servers:
        server.directory = Path(found["directory"]) / server.directory.name
        server.port = int((server.directory / "port").read_text())
    if stack.rabbitmq is not None:
        stack.rabbitmq._epmd_port = found["epmd_port"]
    broker_url = stack.results.url_of(1) if stack.rabbitmq is None else stack.rabbitmq.url
    stack._endpoints = Endpoints(
        redis_url=stack.valkey.url,
        database_url=stack.postgres.url,
        broker_url=broker_url,
        result_url=stack.results.url,
        stripe_sandbox_url=stack.stripe_sandbox.url,
    )
    return stack
