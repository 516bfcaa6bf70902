"""An HTTP server that is not Stripe: each call ends in one line, and nothing counts as taken."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from billing.core.errors import Fatal, Unreachable
from billing.core.settings import Settings
from billing.sinks.sink import Answer, Payload
from billing.sinks.stripe.gateway import Gateway

NOON = datetime(2026, 3, 20, 12, 0, tzinfo=UTC)
EMPTY_LIST = '{"object": "list", "data": [], "has_more": false}'
ODD_METER = '{"object": "list", "data": [{"id": "m", "event_name": "billing_credits"}], "has_more": false}'


@contextmanager
def stranger(body: str) -> Iterator[Gateway]:
    """Yield a gateway to a server that answers everything with 200 and one body."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        do_POST = do_GET  # noqa: N815 - the name that the server looks for

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with Gateway(Settings(stripe_sandbox_url=f"http://127.0.0.1:{server.server_address[1]}")) as gateway:
            yield gateway
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


CALLS: list[Callable[[Gateway], object]] = [
    lambda gateway: gateway.check("billing_credits"),
    lambda gateway: gateway.setup(),
    lambda gateway: gateway.create_customer("acme"),
    lambda gateway: gateway.total("cus_1", "billing_credits", NOON, NOON.replace(hour=13)),
]


@pytest.mark.parametrize("body", ["{}", "[]", '"x"', "<html>", EMPTY_LIST, ODD_METER])
def test_an_answer_that_is_not_stripes_is_one_line(body: str) -> None:
    """Given another server behind the address, then it is named, without a traceback."""
    with stranger(body) as gateway:
        for call in CALLS:
            with pytest.raises((Unreachable, Fatal), match=r"^(Stripe: 'http://127|billing_stripe_meter: )") as raised:
                call(gateway)
            assert "\n" not in str(raised.value)


@pytest.mark.parametrize("body", ["{}", "[]", '"x"', "<html>", EMPTY_LIST, '{"identifier": "another"}'])
def test_an_answer_that_does_not_name_the_event_is_doubt(body: str) -> None:
    """L8: only who repeats the identifier has taken it."""
    payload = Payload(identifier="b1-a", event_name="billing_credits", customer_id="cus_1", units=7, event_at=NOON)
    with stranger(body) as gateway:
        assert gateway.send(payload, idempotency_key="b1-a#1").answer is Answer.UNKNOWN
