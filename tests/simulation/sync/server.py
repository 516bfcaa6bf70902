"""The stand-in in this process: the SDK's own transport talks to its `Api`, with faults, in virtual time.

The SDK builds, signs and reads every request as it does against Stripe; only the socket is missing. A call takes its
turns: others run while it is on its way, so that the stand-in sees calls overlap. What was given up on this side may
still be executed there.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import json
import urllib.parse
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn

import requests
import stripe
from requests.structures import CaseInsensitiveDict

from billing.sinks.stripe.sandbox import errors
from billing.sinks.stripe.sandbox.api import Api
from billing.sinks.stripe.sandbox.faults import Fault
from billing.sinks.stripe.sandbox.requests import Reply, Request
from billing.sinks.stripe.sandbox.state import State
from tests.simulation.chance import Chance
from tests.simulation.sync.chances import CALL_FAULTS, Outage, Rates, happens
from tests.simulation.sync.kernel import Kernel, MachineClock, Task

#: What a read of the SDK waits for bytes at most.
PATIENCE_MS: Final = 20_000
#: How long after its caller has given up a call is executed at the latest: within the lease of its pusher.
LATE_MS: Final = 60_000
_BY_THE_API: Final = {"rate_limit", "unavailable", "error", "commit_then_error"}
URL: Final = "http://stand-in"


@dataclasses.dataclass(slots=True)
class Answer:
    """What `requests` returns, as far as the SDK looks at it."""

    content: str
    status_code: int
    headers: Mapping[str, str]


class Server:
    """The stand-in, and what befalls calls on their way to it."""

    def __init__(self, kernel: Kernel, chance: Chance, rates: Rates) -> None:
        self.kernel, self._chance, self.rates = kernel, chance, rates
        self.state = State(MachineClock(kernel))
        self._api = Api(self.state)
        self.outages: list[Outage] = []
        self.counts: collections.Counter[str] = collections.Counter()
        self._places: collections.Counter[tuple[str, str]] = collections.Counter()
        #: Whether calls go wrong: those of the project do, those that make the world do not.
        self.is_open = False
        self.refuses_sums = False

    @contextlib.contextmanager
    def calm(self) -> Iterator[None]:
        """Let calls succeed meanwhile, at once."""
        was, self.is_open = self.is_open, False
        try:
            yield
        finally:
            self.is_open = was

    def call(self, request: Request) -> Answer:
        """Answer a call, or fail as a connection does. Notes who calls while another call of its place is under way."""
        if not self.is_open:
            return _answer(self._api.answer(request))
        with self._under_way(request):
            return self._call(request)

    @contextlib.contextmanager
    def _under_way(self, request: Request) -> Iterator[None]:
        place = self._place(request)
        if place is None:
            yield
            return
        if self._places[place]:
            self.counts["overlapping calls"] += 1
        self._places[place] += 1
        try:
            yield
        finally:
            self._places[place] -= 1

    def _place(self, request: Request) -> tuple[str, str] | None:
        """Return the customer and meter of an event; None of any other call."""
        if not self._is_event(request):
            return None
        fields = dict(urllib.parse.parse_qsl(request.form))
        return fields["payload[stripe_customer_id]"], fields["event_name"]

    def _call(self, request: Request) -> Answer:
        kind = self._fault(request)
        self.counts[f"calls: {request.method}"] += 1
        if kind is not None:
            self.counts[f"fault: {kind}"] += 1
        if kind == "refused_connection":
            raise _never_made()
        self.kernel.linger(self._chance.whole(10, 90))
        if kind == "conflict":
            return _answer(_refused(errors.too_many_concurrent()))
        if kind == "drop":
            raise requests.exceptions.ConnectionError("Connection aborted.")
        if kind in {"hang", "commit_late"}:
            if kind == "commit_late":
                self._later(request)
            self._hang()
        if self._refuses(request):
            return _answer(_refused(errors.no_such("customer", "it", param="customer", status=400)))
        reply = self._execute(request, self._by_the_api(request, kind))
        if kind == "commit_then_close":
            raise requests.exceptions.ConnectionError("Connection aborted.")
        if kind == "commit_then_hang":
            self._hang()
        return Answer("<html>proxy</html>", 200, CaseInsensitiveDict()) if kind == "garbage" else _answer(reply)

    def _refuses(self, request: Request) -> bool:
        """Whether it is asked for sums of a customer that was deleted, and refuses them."""
        if not self.refuses_sums or not request.path.endswith("/event_summaries"):
            return False
        customer = self.state.store.customer(dict(urllib.parse.parse_qsl(request.form))["customer"])
        return customer is None or customer.deleted

    def _hang(self) -> NoReturn:
        self.kernel.pause(PATIENCE_MS)
        raise requests.exceptions.ReadTimeout("Read timed out.")

    def _fault(self, request: Request) -> str | None:
        now = self.kernel.ms
        while self.outages and self.outages[0].end <= now:
            del self.outages[0]
        if self.outages and self.outages[0].begin <= now and self._happens(self.outages[0].once_in):
            out = self.outages[0]
            blind = out.blind and request.path.endswith("/event_summaries")
            if request.method == "POST" or blind or not out.writes_only:
                return out.kind
        return self._chance.weighted(CALL_FAULTS) if self._happens(self.rates.call) else None

    def _happens(self, once_in: int) -> bool:
        return happens(self._chance, once_in)

    def _is_event(self, request: Request) -> bool:
        return request.method == "POST" and request.path == "/v1/billing/meter_events"

    def _by_the_api(self, request: Request, kind: str | None) -> Fault | None:
        """Return the fault that the stand-in itself carries out: what it takes may be dropped later."""
        if kind in _BY_THE_API:
            return Fault(kind=kind)  # type: ignore[arg-type]
        if not self._is_event(request) or not self._happens(self.rates.dropped):
            return None
        self.counts["fault: dropped_later"] += 1
        return Fault(kind="drop_later")

    def _later(self, request: Request) -> None:
        """Execute a call some time after its caller has given up."""
        task = Task("late call", MachineClock(self.kernel))
        at = self.kernel.ms + PATIENCE_MS + self._chance.whole(0, LATE_MS)
        self.kernel.spawn(task, lambda: self._execute(request, None), at_ms=at)

    def _execute(self, request: Request, fault: Fault | None) -> Reply:
        """Let the stand-in answer; where it may wait for others, they have their turns."""
        steps = self._api._steps(request, fault)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                found: Reply = done.value
                return found
            self.kernel.linger(self._chance.whole(1, 30))


class Session:
    """Stands for `requests.Session` under the SDK's own client."""

    def __init__(self, server: Server) -> None:
        self._server = server

    def request(self, method: str, url: str, *, headers: Mapping[str, str], data: str | None, **_: Any) -> Answer:
        """Send a request."""
        kernel = self._server.kernel
        kernel.pause(0)
        parts = urllib.parse.urlsplit(url)
        answer = self._server.call(
            Request(
                method=method.upper(),
                path=parts.path,
                form=data or parts.query,
                authorization=headers.get("Authorization"),
                key=headers.get("Idempotency-Key"),
            )
        )
        kernel.pause(1)
        return answer

    def close(self) -> None:
        """Do nothing: there is no connection."""


class Transport(stripe.RequestsClient):
    """The SDK's client on such a session; it waits in virtual time between its own tries."""

    def __init__(self, server: Server) -> None:
        super().__init__(timeout=(3.05, PATIENCE_MS / 1_000), session=Session(server))  # type: ignore[arg-type]

    def _sleep_time_seconds(self, num_retries: int, response: Any = None) -> float:
        return 0.0


def _answer(reply: Reply) -> Answer:
    headers = {"Request-Id": "req_simulated", "Content-Type": "application/json", **reply.headers}
    return Answer(reply.body, reply.status, CaseInsensitiveDict(headers))


def _refused(refusal: errors.Refusal) -> Reply:
    return Reply(status=refusal.status, body=json.dumps(refusal.body()), headers=refusal.headers)


def _never_made() -> requests.exceptions.ConnectionError:
    """Return what `requests` raises when nobody listens."""
    reason = type("NewConnectionError", (Exception,), {})("Connection refused")
    outer = Exception("Max retries exceeded")
    outer.reason = reason  # type: ignore[attr-defined]
    return requests.exceptions.ConnectionError(outer)
