"""The HTTP side: what comes in becomes a `Request`, a `Reply` goes out, and connections break where a fault says so."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any, Final

from tornado.web import Application, RequestHandler

from billing.core.errors import InvalidValue
from billing.sinks.stripe.sandbox import faults
from billing.sinks.stripe.sandbox.api import Api
from billing.sinks.stripe.sandbox.invoicing.billed import billed
from billing.sinks.stripe.sandbox.records import new_id
from billing.sinks.stripe.sandbox.requests import Reply, Request
from billing.sinks.stripe.sandbox.state import State

#: The version that the SDK of the lock file pins; a caller that names another one gets that one back.
API_VERSION: Final = "2026-10-28.endive"


class ApiHandler(RequestHandler):
    """Every call of the API."""

    def initialize(self, state: State, api: Api, closing: asyncio.Event) -> None:
        """Take what all requests share."""
        self._state, self._api, self._closing = state, api, closing
        self._gone = asyncio.Event()

    def on_connection_close(self) -> None:
        """Note that the caller has given up."""
        self._gone.set()

    async def get(self) -> None:
        """Answer a GET."""
        await self._serve()

    async def post(self) -> None:
        """Answer a POST."""
        await self._serve()

    async def delete(self) -> None:
        """Answer a DELETE."""
        await self._serve()

    async def _serve(self) -> None:
        given = self.request
        is_query = given.method in {"GET", "DELETE"}
        request = Request(
            method=given.method or "",
            path=given.path,
            form=given.query if is_query else given.body.decode("utf-8", errors="replace"),
            authorization=given.headers.get("Authorization"),
            key=given.headers.get("Idempotency-Key"),
        )
        fault = self._api.fault_for(request)
        kind = fault.kind if fault is not None else None
        if kind == "hang":
            await self._hang()
        if fault is not None and kind in {"hang", "drop"}:
            self._api.lost(request, fault)
            self.detach().close()
            return
        reply = await self._api.answer_in_turn(request, fault)
        if kind == "commit_then_hang":
            await self._hang()
        if kind in {"commit_then_close", "commit_then_hang"}:
            self.detach().close()
            return
        self._send(reply, request.key)

    async def _hang(self) -> None:
        """Wait until the caller gives up, a control request ends it, or the server ends."""
        waits = [
            asyncio.ensure_future(wait)
            for wait in (self._gone.wait(), self._closing.wait(), self._state.pause(seconds=None))
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    def _send(self, reply: Reply, key: str | None) -> None:
        self.set_status(reply.status)
        self.set_header("Content-Type", "application/json")
        self.set_header("Request-Id", new_id("req"))
        self.set_header("Stripe-Version", self.request.headers.get("Stripe-Version", API_VERSION))
        if key is not None:
            self.set_header("Idempotency-Key", key)
        for name, value in reply.headers.items():
            self.set_header(name, value)
        self.write(reply.body)


class ControlHandler(RequestHandler):
    """`/sandbox/…`: what a test or an operator says to the stand-in. Never below /v1 and /v2, Stripe's alone."""

    def initialize(self, state: State) -> None:
        """Take the state."""
        self._state = state

    def get(self, what: str) -> None:
        """`state`, `events`, `faults`, `knobs`, `requests`, `billed`."""
        if what == "state":
            self.write(self._state.describe())
        elif what == "events":
            self.write({"events": [dataclasses.asdict(event) for event in self._state.store.events.all()]})
        elif what == "billed":
            self._state.catch_up()
            customer, event_name = self.get_query_argument("customer"), self.get_query_argument("event_name")
            self.write({"billed": billed(self._state.store, customer, event_name)})
        elif what == "knobs":
            self.write({"knobs": dataclasses.asdict(self._state.knobs)})
        elif what == "requests":
            self.write({"requests": self._state.requests.list()})
        elif what == "faults":
            self.write({"faults": self._state.faults.list()})
        else:
            self.send_error(404)

    def post(self, what: str) -> None:
        """`reset`, `knobs`, `clock`, `faults`."""
        try:
            self._control(what, _object(self.request.body))
        except (InvalidValue, ValueError) as error:
            self.set_status(400)
            self.write({"error": str(error)})

    def delete(self, what: str) -> None:
        """`faults`: forget those that have not struck, end those that hold a call up."""
        if what != "faults":
            self.send_error(404)
            return
        self._state.release()
        self.write({})

    def _control(self, what: str, given: dict[str, Any]) -> None:
        if what == "reset":
            self._state.reset()
        elif what == "knobs":
            self._state.turn(given)
        elif what == "faults":
            self._state.faults.add(faults.parse(given))
        elif what == "clock":
            self._state.set_clock(given)
        else:
            self.send_error(404)
            return
        self.write({})


def _object(body: bytes) -> dict[str, Any]:
    try:
        given = json.loads(body or b"{}")
    except RecursionError:
        raise InvalidValue("body", f"{len(body)} bytes", "must not be nested without end") from None
    if not isinstance(given, dict):
        raise InvalidValue("body", type(given).__name__, "must be a JSON object")
    return given


def application(state: State, closing: asyncio.Event) -> Application:
    """Return the routes of the stand-in; requests are not logged, since a request carries a key."""
    return Application(
        [
            (r"/v[12]/.*", ApiHandler, {"state": state, "api": Api(state), "closing": closing}),
            (r"/sandbox/([a-z]+)", ControlHandler, {"state": state}),
        ],
        log_function=lambda _handler: None,
    )
