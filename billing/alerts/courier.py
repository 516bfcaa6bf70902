"""Makes the HTTP calls of webhooks, many at a time, each within one bound that covers it whole.

It talks to the transport itself: no redirect is followed, no body is read, no proxy or cookie comes in, and no URL is
logged. A receiver that hangs, or answers a byte a second, or pours out headers, ends with its bound and costs others
nothing (L9, L10).
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

import httpx

from billing.alerts.answer import Answer

_HEADERS: Final = {"content-type": "application/json", "user-agent": "celery-billing"}
_STOP_SECONDS: Final = 5.0
#: Of an answer so much is read (L9): a head is shorter, and reading "103 Early Hints" without end would take the loop.
ANSWER_BYTES_MAX: Final = 32_768
#: When the transport has made a stream, or put TLS around it (httpx, "Extensions", trace).
_CONNECTED: Final = frozenset({"connection.connect_tcp.complete", "connection.start_tls.complete"})


@dataclass(frozen=True, kw_only=True, slots=True)
class Call:
    """One attempt."""

    url: str
    headers: Mapping[str, str]
    body: bytes


class Courier:
    """Posts calls on an event loop of its own. Threads may share it; close it."""

    def __init__(self, *, timeout_seconds: float, calls_max: int) -> None:
        self._timeout = timeout_seconds
        self._loop = asyncio.new_event_loop()
        # Names are looked up in threads: a slow server of names must not hold up the others.
        self._loop.set_default_executor(ThreadPoolExecutor(calls_max, thread_name_prefix="billing-webhook-names"))
        limits = httpx.Limits(max_connections=calls_max, max_keepalive_connections=0)
        self._transport = httpx.AsyncHTTPTransport(limits=limits)
        self._thread = threading.Thread(target=self._loop.run_forever, name="billing-webhook-calls", daemon=True)
        self._thread.start()

    def submit(self, call: Call) -> Future[Answer]:
        """Start a call; its future always has an answer."""
        return asyncio.run_coroutine_threadsafe(self._post(call), self._loop)

    def close(self) -> None:
        """End what is under way, and the thread."""
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(_STOP_SECONDS)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_STOP_SECONDS)
        self._loop.close()

    async def _end(self) -> None:
        calls = asyncio.all_tasks() - {asyncio.current_task()}
        for call in calls:
            call.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
        await self._transport.aclose()

    async def _post(self, call: Call) -> Answer:
        extensions = {"timeout": httpx.Timeout(self._timeout).as_dict(), "trace": _bound_reading}
        try:
            async with asyncio.timeout(self._timeout):
                headers = {**_HEADERS, **call.headers}
                request = httpx.Request("POST", call.url, headers=headers, content=call.body, extensions=extensions)
                response = await self._transport.handle_async_request(request)
                await response.aclose()
        except (TimeoutError, httpx.TimeoutException):
            return Answer(status=None, reason=f"did not answer within {self._timeout:g} s")
        except Exception as error:  # noqa: BLE001 - whatever a stranger's server causes is this attempt's answer
            # Only its kind: the message may name the URL, which may hold a token.
            return Answer(status=None, reason=f"could not be called: {type(error).__name__}")
        return Answer(status=response.status_code)


async def _bound_reading(event: str, seen: Mapping[str, Any]) -> None:
    """Have a new connection give no more than `ANSWER_BYTES_MAX`; the transport itself reads on for ever."""
    if event not in _CONNECTED:
        return
    stream = seen["return_value"]
    read, left = stream.read, ANSWER_BYTES_MAX

    async def bounded(max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109 - httpcore's signature
        nonlocal left
        if not left:
            raise httpx.ReadError("the answer does not end")
        got: bytes = await read(min(max_bytes, left), timeout)
        left -= len(got)
        return got

    stream.read = bounded
