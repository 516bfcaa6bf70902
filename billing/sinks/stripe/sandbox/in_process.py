"""The stand-in without a socket, for simulations: one thread, the clock that it is given, in memory or a file.

Guarantee: the same rules, faults and invoices as over HTTP, since it is the same `Api`; nothing waits.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from billing.core.clock import Clock
from billing.sinks.stripe.sandbox import faults
from billing.sinks.stripe.sandbox.api import Api
from billing.sinks.stripe.sandbox.invoicing.billed import billed
from billing.sinks.stripe.sandbox.requests import Reply, Request
from billing.sinks.stripe.sandbox.state import State

AUTHORIZATION: Final = "Bearer sk_test_inprocess"
#: Faults after which the caller has no answer: it cannot know what was done.
SILENT: Final = {"drop", "hang", "commit_then_close", "commit_then_hang"}


class InProcess:
    """One stand-in. `state.turn(…)` turns knobs, `fault(…)` adds to the script, `billed(…)` is what counts."""

    def __init__(self, clock: Clock, file: Path | None = None) -> None:
        self.state = State(clock, file)
        self._api = Api(self.state)

    def call(
        self, method: str, path: str, params: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> Reply | None:
        """Make a call; None: the connection broke, or timed out, and nobody knows what was done."""
        is_json = path.startswith("/v2/") and method == "POST"
        fields = params or {} if is_json else _encoded(params or {})
        request = Request(method=method, path=path, authorization=AUTHORIZATION, key=key, fields=fields)
        fault = self._api.fault_for(request)
        if fault is not None and fault.kind in {"drop", "hang"}:
            self._api.lost(request, fault)
            return None
        reply = self._api.answer(request, fault)
        return None if fault is not None and fault.kind in SILENT else reply

    def ask(self, method: str, path: str, params: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Make a call that must succeed, and return its object; `RuntimeError` with the answer otherwise."""
        reply = self.call(method, path, params)
        if reply is None or reply.status != 200:  # noqa: PLR2004 - HTTP
            raise RuntimeError(f"{method} {path}: {'no answer' if reply is None else reply.body}")
        found: dict[str, Any] = json.loads(reply.body)
        return found

    def fault(self, kind: str, **details: object) -> None:
        """Let the next calls that match fail; see `Fault` for kinds and details."""
        self.state.faults.add(faults.parse({"kind": kind, **details}))

    def billed(self, customer: str, event_name: str) -> int:
        """Return the units on final invoices and in invoice items."""
        self.state.catch_up()
        return billed(self.state.store, customer, event_name)

    def close(self) -> None:
        """Close the memory, which forgets everything, or the file."""
        self.state.store.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _encoded(value: Any) -> Any:
    """Return a parameter as a form would carry it: texts, and dictionaries instead of lists."""
    if isinstance(value, Mapping):
        return {str(name): _encoded(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return {str(place): _encoded(one) for place, one in enumerate(value)}
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else str(value)
