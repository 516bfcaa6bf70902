"""Stripe's stand-in answers any call with JSON and 2xx or 4xx; a call that it refuses has changed nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final

from billing.core.clock import Clock
from billing.sinks.stripe.sandbox.calls import ROUTES
from billing.sinks.stripe.sandbox.in_process import AUTHORIZATION, InProcess
from billing.sinks.stripe.sandbox.requests import Reply, Request
from tests.fuzz.laws import hold
from tests.fuzz.target import Target

#: L9: calls of one input.
_CALLS_MAX: Final = 8
_FREE: Final = 200


class StoppedClock(Clock):
    """A clock that stands still, so that nothing happens but what is called for."""

    def now(self) -> datetime:
        """Return one Monday."""
        return datetime(2026, 6, 1, tzinfo=UTC)

    def monotonic(self) -> float:
        """Return no time."""
        return 0.0


_SANDBOX: Final = InProcess(StoppedClock())


def check(data: bytes) -> None:
    """Make the calls that bytes spell, parted by 0xff: route, key or none, form; `$0` is the first id answered."""
    _SANDBOX.state.reset()
    known: list[str] = []
    for part in data.split(b"\xff")[:_CALLS_MAX]:
        if part:
            reply = call(part, known)
            found: Any = json.loads(reply.body)
            if isinstance(found, dict) and isinstance(found.get("id"), str):
                known.append(found["id"])
    _SANDBOX.state.describe()


def call(part: bytes, known: list[str]) -> Reply:
    """Make one call, and hold its answer to the law."""
    number, text = part[0], part[1:].decode("utf-8", "replace")
    for place, name in enumerate(known):
        text = text.replace(f"${place}", name)
    key = None
    if text.startswith("!"):
        key, _, text = text[1:].partition(" ")
    if number >= _FREE:
        method, path, form = ("GET", "POST", "DELETE")[number % 3], *_pair(text)
    else:
        route = ROUTES[number % len(ROUTES)]
        object_id, form = _pair(text) if "{id}" in route.template else ("", text)
        method, path = route.method, route.template.replace("{id}", object_id)
    state = _SANDBOX.state
    before = (state.store.count(), state.store.events.count_dropped())
    request = Request(method=method, path=path, form=form, authorization=AUTHORIZATION, key=key)
    reply = _SANDBOX._api.answer(request)
    hold(that=200 <= reply.status < 300 or 400 <= reply.status < 500, but=(request, reply))
    if reply.status >= 400:
        hold(that=(state.store.count(), state.store.events.count_dropped()) == before, but=(request, reply))
        message = json.loads(reply.body)["error"]["message"]
        hold(that=0 < len(message) <= 6_000, but=(request, len(message)))
    return reply


def _pair(text: str) -> tuple[str, str]:
    first, _, rest = text.partition(" ")
    return first, rest


_NUMBERS: Final = {(route.method, route.template): number for number, route in enumerate(ROUTES)}
_FORMS: Final = (
    ("POST", "/v1/customers", "name=acme&metadata[a]=b"),
    ("POST", "/v1/billing/meters", "display_name=Credits&event_name=credits&default_aggregation[formula]=sum"),
    ("POST", "/v1/products", "name=page"),
    ("POST", "/v1/prices",
     "product=$2&currency=eur&unit_amount=3&recurring[interval]=month&recurring[usage_type]=metered&recurring[meter]=$1"),
    ("POST", "/v1/subscriptions", "customer=$0&items[0][price]=$3&expand[]=latest_invoice"),
    ("POST", "/v1/billing/meter_events",
     "!b1-a#1 event_name=credits&payload[value]=5&payload[stripe_customer_id]=$0&identifier=b1-a&timestamp=1780272000"),
    ("GET", "/v1/invoices", "customer=$0&limit=3"),
    ("POST", "/v1/invoiceitems", "customer=$0&currency=eur&amount=5&period[start]=1&period[end]=2"),
)  # fmt: skip


def seeds() -> Iterator[bytes]:
    """Yield the calls of an account in their order, each route alone, and what is no route."""
    spelled = [bytes([_NUMBERS[method, path]]) + form.encode() for method, path, form in _FORMS]
    yield b"\xff".join(spelled)
    yield b"\xff".join(spelled[1:2])
    v2 = (
        bytes([_NUMBERS["POST", "/v2/billing/meter_events"]])
        + json.dumps(
            {"event_name": "credits", "payload": {"value": "5", "stripe_customer_id": "$0"}, "identifier": "b1-b"}
        ).encode()
    )
    yield b"\xff".join([*spelled[:2], v2])
    for number in range(len(ROUTES)):
        yield b"\xff".join([spelled[0], bytes([number]) + b"$0 limit=3"])
    yield bytes([_FREE]) + b"/v1/nothing x=1"


TARGET = Target(
    check=check,
    seeds=seeds,
    words=tuple(
        {f"{name}=".encode() for route in ROUTES for name in route.takes} | {b"\xff", b"$0", b"$1", b"[0]", b"!k "}
    ),
)
