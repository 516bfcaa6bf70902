"""The stand-in's control takes what its knobs, faults and clock can be, refuses the rest whole, and goes on."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

from billing.core.errors import InvalidValue
from billing.sinks.stripe.sandbox import faults
from billing.sinks.stripe.sandbox.handlers import _object
from billing.sinks.stripe.sandbox.in_process import InProcess
from tests.fuzz.laws import check_line, hold, parts_of
from tests.fuzz.target import Target
from tests.fuzz.targets.stripe_calls import StoppedClock

_SANDBOX: Final = InProcess(StoppedClock())


def check(data: bytes) -> None:
    """Turn knobs, add a fault, set the clock, as bytes say; then make the calls of a small account."""
    state = _SANDBOX.state
    state.reset()
    for control, body in zip((state.turn, _add_fault, state.set_clock), parts_of(data, 3), strict=True):
        before = (state.knobs, state.faults.list(), state.clock.offset_seconds, state.clock.frozen_at)
        try:
            # What the handler does with a body, and what it answers 400 to.
            control(_object(body))
        except (InvalidValue, ValueError) as error:
            check_line(str(error))
            after = (state.knobs, state.faults.list(), state.clock.offset_seconds, state.clock.frozen_at)
            hold(that=before == after, but=(before, after))
    _use()
    json.dumps(state.describe())
    json.dumps(state.requests.list())


def _add_fault(given: dict[str, Any]) -> None:
    _SANDBOX.state.faults.add(faults.parse(given))


def _use() -> None:
    for method, path, params in (
        ("POST", "/v1/customers", {"name": "acme"}),
        ("POST", "/v1/billing/meters", {"display_name": "Credits", "event_name": "credits",
                                        "default_aggregation": {"formula": "sum"}}),
        ("POST", "/v1/billing/meter_events", {"event_name": "credits",
                                              "payload": {"value": "5", "stripe_customer_id": "cus_x"}}),
        ("GET", "/v2/core/events", {}),
    ):  # fmt: skip
        reply = _SANDBOX.call(method, path, params)
        hold(that=reply is None or isinstance(json.loads(reply.body), dict), but=reply)


def seeds() -> Iterator[bytes]:
    """Yield knobs, faults and times."""
    knobs = [b'{"decimals":true,"identifier_scope":"meter"}', b'{"calls_per_second":5,"summary_lag_seconds":60}', b"{}"]
    scripts = [b'{"kind":"error","path":"/v1/*","count":2,"after":1}', b'{"kind":"slow","seconds":0.5}', b"{}"]
    clocks = [b'{"advance_seconds":5}', b'{"frozen_at":7258118400}', b'{"offset_seconds":-5,"frozen_at":null}', b"{}"]
    for place, clock in enumerate(clocks):
        yield b"\xff".join((knobs[place % 3], scripts[place % 3], clock))


TARGET = Target(
    check=check, seeds=seeds, words=(b'"frozen_at":', b'"advance_seconds":', b'"kind":', b"7258118400", b"-")
)
