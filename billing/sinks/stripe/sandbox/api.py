"""One request from its arrival to its answer: fault, key, parameters, idempotency, execution, commit.

Guarantee: the event and the answer that its idempotency key keeps are committed together, before anything is answered.
A fault says where on this way things go wrong. `answer` is a plain function: a simulation calls it without a socket.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Generator, Mapping
from typing import Any, Final

from billing.sinks.stripe.sandbox import authorization, calls, dialects, errors, idempotency, params
from billing.sinks.stripe.sandbox.dialects import OK, Dialect
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.faults import Fault
from billing.sinks.stripe.sandbox.records import SavedReply
from billing.sinks.stripe.sandbox.requests import Reply, Request, customer_of
from billing.sinks.stripe.sandbox.resources import meter_events, v2_meter_events
from billing.sinks.stripe.sandbox.routing import Call, Route
from billing.sinks.stripe.sandbox.state import State

REPLAYED: Final = {"Idempotent-Replayed": "true"}
_ONE_AT_A_TIME: Final = {meter_events.create, v2_meter_events.create}
Steps = Generator[None, None, Reply]


class Api:
    """Answers requests one after the other, as far as they wait for nothing."""

    def __init__(self, state: State) -> None:
        self._state = state
        self._second = self._in_second = 0

    def fault_for(self, request: Request) -> Fault | None:
        """Count a call, and return the fault that strikes it."""
        self._state.calls[f"{request.method} {request.path}"] += 1
        if not self._state.faults:
            return None
        return self._state.faults.take(request.method, request.path, customer_of(_readable(request)))

    def lost(self, request: Request, fault: Fault) -> None:
        """Note a request of which nothing is executed, and that has no answer."""
        self._state.requests.add(request, _readable(request), fault, status=None, at=self._state.clock.now())

    def answer(self, request: Request, fault: Fault | None = None) -> Reply:
        """Answer a request without waiting for anything (`slow` is as fast as no fault)."""
        steps = self._steps(request, fault)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                reply: Reply = end.value
                return reply

    async def answer_in_turn(self, request: Request, fault: Fault | None) -> Reply:
        """Answer a request; calls that come at the same time are seen to overlap.

        The connection's own faults (drop, hang, close) are the handler's business.
        """
        steps = self._steps(request, fault)
        try:
            while True:
                try:
                    next(steps)
                except StopIteration as end:
                    reply: Reply = end.value
                    return reply
                if fault is not None and fault.kind == "slow":
                    await self._state.pause(fault.seconds)
                else:
                    await asyncio.sleep(0)
        finally:
            steps.close()

    def _steps(self, request: Request, fault: Fault | None) -> Steps:
        """Answer a request; where it may wait for others it yields."""
        dialect, fields = dialects.of(request.path), request.fields or {}
        try:
            _refuse_before(fault)
            self._refuse_above_rate()
            authorization.check(request.authorization)
            route, object_id = calls.find(request.method, request.path)
            if request.fields is None:
                fields = dialect.fields(request)
            key = request.key if request.method == "POST" else None
            if key is not None:
                idempotency.check_key(key)
                key = dialect.key(request)
            with self._state.in_flight.key(key):
                call = Call(state=self._state, params={}, now=0, id=object_id, key=key)
                reply = yield from self._once(request, (route, call), fields, fault)
        except Refusal as refusal:
            reply = _reply(refusal.status, dialect.error(refusal), _headers(refusal, fault))
        self._state.requests.add(request, fields, fault, status=reply.status, at=self._state.clock.now())
        return reply

    def _once(
        self, request: Request, found: tuple[Route, Call], fields: Mapping[str, Any], fault: Fault | None
    ) -> Steps:
        """Execute a call, or replay the answer that its key has kept."""
        state, dialect, (route, unchecked) = self._state, dialects.of(request.path), found
        key, mark = unchecked.key, ""
        if key is not None:
            mark = idempotency.fingerprint(request.method, request.path, fields)
            since = state.clock.now() - dialect.window_seconds(state.knobs)
            if (kept := state.store.saved_reply(key, since=since)) is not None:
                if kept.fingerprint != mark:
                    raise errors.key_of_other_request(request.key or "")
                return Reply(status=kept.status, body=kept.body, headers={**kept.headers, **REPLAYED})
        checked = params.check(fields, route.takes)
        with state.in_flight.place(self._place(route, fields)):
            generation = state.generation
            yield
            if state.generation != generation:
                raise errors.unavailable()  # a reset came in between: this call belongs to what was forgotten
            now = state.clock.now()
            state.progress.catch_up(now)
            drop_code = fault.code if fault is not None and fault.kind == "drop_later" else None
            call = Call(
                state=state,
                params=checked,
                now=now,
                id=unchecked.id,
                key=request.key,
                drop_code=drop_code,
                api=request.path[1:3],
            )
            return self._execute(route, call, fault, (dialect, key, mark))

    def _execute(
        self, route: Route, call: Call, fault: Fault | None, kept_as: tuple[Dialect, str | None, str]
    ) -> Reply:
        store, dialect = self._state.store, kept_as[0]
        if fault is not None and fault.kind == "error":
            reply = _failed(dialect, fault)
            with store.transaction():
                self._keep(kept_as, call.now, reply)
            return reply
        try:
            with store.transaction():
                reply = _reply(OK, route.run(call), {})
                if fault is not None and fault.kind == "commit_then_error":
                    reply = _failed(dialect, fault)
                self._keep(kept_as, call.now, reply)
        except Refusal as refusal:
            reply = _reply(refusal.status, dialect.error(refusal), refusal.headers)
            if refusal.executed:
                with store.transaction():
                    self._keep(kept_as, call.now, reply)
        return reply

    def _refuse_above_rate(self) -> None:
        """Count calls per second of real time, whatever the stand-in's clock says."""
        limit = self._state.knobs.calls_per_second
        if not limit:
            return
        second = int(time.monotonic())
        if second != self._second:
            self._second, self._in_second = second, 0
        self._in_second += 1
        if self._in_second > limit:
            raise errors.rate_limited()

    def _keep(self, kept_as: tuple[Dialect, str | None, str], now: int, reply: Reply) -> None:
        dialect, key, mark = kept_as
        if key is not None and dialect.keeps(reply.status):
            saved = SavedReply(
                fingerprint=mark, status=reply.status, body=reply.body, headers=reply.headers, saved_at=now
            )
            self._state.store.save_reply(key, saved, seconds=dialect.window_seconds(self._state.knobs))

    def _place(self, route: Route, fields: Mapping[str, Any]) -> tuple[str, str] | None:
        if route.run not in _ONE_AT_A_TIME or not self._state.knobs.one_call_per_customer_and_meter:
            return None
        return str(fields.get("event_name")), str(customer_of(fields))


def _readable(request: Request) -> Mapping[str, Any]:
    """Return what a request says, as far as it can be read."""
    if request.fields is not None:
        return request.fields
    try:
        return dialects.of(request.path).fields(request)
    except Refusal:
        return {}


def _refuse_before(fault: Fault | None) -> None:
    if fault is not None and fault.kind == "rate_limit":
        raise errors.rate_limited()
    if fault is not None and fault.kind == "unavailable":
        raise errors.unavailable()


def _headers(refusal: Refusal, fault: Fault | None) -> dict[str, str]:
    return {**refusal.headers, **(fault.headers if fault is not None else {})}


def _failed(dialect: Dialect, fault: Fault) -> Reply:
    return _reply(500, dialect.error(errors.internal()), fault.headers)


def _reply(status: int, body: dict[str, Any], headers: dict[str, str]) -> Reply:
    return Reply(status=status, body=json.dumps(body), headers=headers)
