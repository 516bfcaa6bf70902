"""The stand-in's process: a port on loopback, one event loop, a clean end on SIGINT and SIGTERM."""

from __future__ import annotations

import asyncio
import errno
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets

from billing.core.clock import SystemClock
from billing.core.errors import Fatal
from billing.sinks.stripe.sandbox.handlers import application
from billing.sinks.stripe.sandbox.state import State

LOOPBACK: Final = "127.0.0.1"
BODY_MAX_BYTES: Final = 1_048_576
IDLE_SECONDS: Final = 300.0


def serve(port: int, data: Path | None, announce: Callable[[str], None]) -> None:
    """Answer on 127.0.0.1 until a signal ends it; call `announce` with the URL once it does.

    `port` 0 takes any free one; `data` is the file to keep everything in, None forgets it at the end. Raises
    `InvalidValue` when the port is in use, `Fatal` when the file cannot be used.
    """
    asyncio.run(_serve(port, data, announce))


def announcement(url: str) -> str:
    """Say what it is, what it is not, and how billing is pointed at it."""
    return (
        f"stand-in for Stripe (not Stripe: no money moves, any sk_test_ key is taken) at {url}\n"
        f"point billing at it: BILLING_STRIPE_SANDBOX_URL={url} (and no API key); Ctrl-C ends"
    )


async def _serve(port: int, data: Path | None, announce: Callable[[str], None]) -> None:
    ended, loop = asyncio.Event(), asyncio.get_running_loop()
    try:
        sockets = bind_sockets(port, LOOPBACK)
    except OSError as error:
        raise Fatal(f"--port: {port}: {_why(error)} on {LOOPBACK}") from None
    state = State(SystemClock(), data)
    server = HTTPServer(application(state, ended), max_body_size=BODY_MAX_BYTES, idle_connection_timeout=IDLE_SECONDS)
    server.add_sockets(sockets)
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    try:
        announce(f"http://{LOOPBACK}:{sockets[0].getsockname()[1]}")
        await ended.wait()
    finally:
        server.stop()
        await server.close_all_connections()
        state.store.close()


def _why(error: OSError) -> str:
    return "is in use by another program" if error.errno == errno.EADDRINUSE else str(error.strerror)
