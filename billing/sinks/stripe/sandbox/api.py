"""One request from its arrival to its answer: fault, key, parameters, idempotency, execution, commit.

Guarantee: the event and the answer that its idempotency key keeps are committed together, before anything is answered.
A fault says where on this way things go wrong.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import dataclasses
import json
import re
import time
from typing import Any, Final

from billing.sinks.stripe.sandbox import calls, errors, idempotency, params
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.faults import Fault
from billing.sinks.stripe.sandbox.form import decode
from billing.sinks.stripe.sandbox.records import SavedReply
from billing.sinks.stripe.sandbox.resources import meter_events
from billing.sinks.stripe.sandbox.routing import Call, Route
from billing.sinks.stripe.sandbox.state import State

_TEST_KEY: Final = re.compile(r"(sk|rk)_test_[A-Za-z0-9_]+")
_LIVE_KEY: Final = re.compile(r"(sk|rk|pk)_live_.*", re.DOTALL)
REPLAYED: Final = {"Idempotent-Replayed": "true"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """A request as it came; `form` is its body, or its query without one."""

    method: str
    path: str
    form: str
    authorization: str | None
    key: str | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """An answer; `body` is JSON."""

    status: int
    body: str
    headers: dict[str, str]


class Api:
    """Answers requests one after the other, as far as they wait for nothing."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._second = self._in_second = 0

    def fault_for(self, request: Request) -> Fault | None:
        """Return the fault that strikes this request."""
        try:
            customer = _customer(decode(request.form))
        except Refusal:
            customer = None
        return self._state.faults.take(request.method, request.path, customer)

    async def answer(self, request: Request, fault: Fault | None) -> Reply:
        """Answer a request. The connection's own faults (drop, hang, close) are the handler's business."""
        try:
            _refuse_before(fault)
            self._refuse_above_rate()
            _authorize(request.authorization)
            route, object_id = calls.find(request.method, request.path)
            fields = decode(request.form)
            key = request.key if request.method == "POST" else None
            if key is not None:
                idempotency.check_key(key)
            with self._state.in_flight.key(key):
                return await self._once(request, route, object_id, fields, fault)
        except Refusal as refusal:
            return _reply(refusal.status, refusal.body(), _headers(refusal, fault))

    async def _once(
        self, request: Request, route: Route, object_id: str, fields: dict[str, Any], fault: Fault | None
    ) -> Reply:
        """Execute a call, or replay the answer that its key has kept."""
        state, key = self._state, request.key if request.method == "POST" else None
        mark = idempotency.fingerprint(request.method, request.path, fields)
        if key is not None:
            since = state.clock.now() - state.knobs.key_window_seconds
            if (kept := state.store.saved_reply(key, since=since)) is not None:
                if kept.fingerprint != mark:
                    raise errors.key_of_other_request(key)
                return Reply(status=kept.status, body=kept.body, headers={**kept.headers, **REPLAYED})
        checked = params.check(fields, route.takes)
        with state.in_flight.place(self._place(route, fields)):
            generation = state.generation
            # One turn of the loop even without a fault: a call that came at the same time is seen to overlap.
            await asyncio.sleep(0)
            if fault is not None and fault.kind == "slow":
                await state.pause(fault.seconds)
            if state.generation != generation:
                raise errors.unavailable()  # a reset came in between: this call belongs to what was forgotten
            state.progress.catch_up(state.clock.now())
            call = Call(state=state, params=checked, now=state.clock.now(), id=object_id, key=key)
            return self._execute(route, call, fault, mark)

    def _execute(self, route: Route, call: Call, fault: Fault | None, mark: str) -> Reply:
        store, key = self._state.store, call.key
        if fault is not None and fault.kind == "error":
            reply = _failed(fault)
            with store.transaction():
                self._keep(key, mark, reply)
            return reply
        try:
            with store.transaction():
                reply = _reply(200, route.run(call), {})
                if fault is not None and fault.kind == "commit_then_error":
                    reply = _failed(fault)
                self._keep(key, mark, reply)
        except Refusal as refusal:
            reply = _reply(refusal.status, refusal.body(), refusal.headers)
            if refusal.executed:
                with store.transaction():
                    self._keep(key, mark, reply)
        return reply

    def _refuse_above_rate(self) -> None:
        """Count calls per second of real time, whatever the stand-in's clock says."""
        limit, second = self._state.knobs.calls_per_second, int(time.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if limit and self._in_second > limit:
            raise errors.rate_limited()

    def _keep(self, key: str | None, mark: str, reply: Reply) -> None:
        if key is not None:
            saved_at = self._state.clock.now()
            saved = SavedReply(
                fingerprint=mark, status=reply.status, body=reply.body, headers=reply.headers, saved_at=saved_at
            )
            self._state.store.save_reply(key, saved)

    def _place(self, route: Route, fields: dict[str, Any]) -> tuple[str, str] | None:
        if route.run is not meter_events.create or not self._state.knobs.one_call_per_customer_and_meter:
            return None
        return str(fields.get("event_name")), str(_customer(fields))


def _refuse_before(fault: Fault | None) -> None:
    if fault is not None and fault.kind == "rate_limit":
        raise errors.rate_limited()
    if fault is not None and fault.kind == "unavailable":
        raise errors.unavailable()


def _authorize(authorization: str | None) -> None:
    """Take any test key. Nothing of a key is kept or repeated."""
    key = _key(authorization or "")
    if not key:
        raise errors.no_key()
    if _LIVE_KEY.fullmatch(key):
        raise errors.live_key()
    if not _TEST_KEY.fullmatch(key):
        raise errors.wrong_key()


def _key(authorization: str) -> str:
    """Return the key: as the SDK sends it, or as a user name, as `curl -u sk_test_…:` does. Both are documented."""
    scheme, _, given = authorization.partition(" ")
    if scheme.lower() == "bearer":
        return given.strip()
    if scheme.lower() == "basic":
        with contextlib.suppress(ValueError):
            return base64.b64decode(given, validate=True).decode().partition(":")[0]
    return ""


def _customer(fields: dict[str, Any]) -> str | None:
    """Return the customer that a call is about, as far as its parameters say it with Stripe's usual names."""
    payload = fields.get("payload")
    found = payload.get("stripe_customer_id") if isinstance(payload, dict) else fields.get("customer")
    return found if isinstance(found, str) else None


def _headers(refusal: Refusal, fault: Fault | None) -> dict[str, str]:
    return {**refusal.headers, **(fault.headers if fault is not None else {})}


def _failed(fault: Fault) -> Reply:
    return _reply(500, errors.internal().body(), fault.headers)


def _reply(status: int, body: dict[str, Any], headers: dict[str, str]) -> Reply:
    return Reply(status=status, body=json.dumps(body, indent=2), headers=headers)
