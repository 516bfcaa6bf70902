"""How v1 and v2 of the API differ: the encoding of what is asked, the envelope of an error, what a key keeps.

Sources: v1 keeps every executed call's answer under its key for at least 24 hours, a 500 too; v2 keeps a success for 30
days and executes again what failed. Both are documented.
"""

from __future__ import annotations

import json
from typing import Any, Final, Protocol

from billing.sinks.stripe.sandbox.errors import INVALID, Refusal
from billing.sinks.stripe.sandbox.form import decode
from billing.sinks.stripe.sandbox.knobs import Knobs
from billing.sinks.stripe.sandbox.requests import Request

OK: Final = 200


class Dialect(Protocol):
    """One version of the API."""

    def fields(self, request: Request) -> dict[str, Any]:
        """Return what a request says; raise `Refusal` when it cannot be read."""

    def error(self, refusal: Refusal) -> dict[str, Any]:
        """Return the body of a refusal."""

    def key(self, request: Request) -> str:
        """Return the name under which an answer is kept."""

    def window_seconds(self, knobs: Knobs) -> int:
        """Return how long an answer is kept."""

    def keeps(self, status: int) -> bool:
        """Whether the answer to an executed call is kept."""


class V1:
    """Forms, errors with a type, keys that keep what was executed, whatever came of it."""

    def fields(self, request: Request) -> dict[str, Any]:
        """Read a form."""
        return decode(request.form)

    def error(self, refusal: Refusal) -> dict[str, Any]:
        """Return type, message, and code and parameter where there are some."""
        return refusal.body()

    def key(self, request: Request) -> str:
        """Return the key: one name space for all calls."""
        return request.key or ""

    def window_seconds(self, knobs: Knobs) -> int:
        """At least 24 hours."""
        return knobs.key_window_seconds

    def keeps(self, status: int) -> bool:  # noqa: ARG002 - v2 asks
        """Keep everything, a 500 too."""
        return True


class V2:
    """JSON, errors with code and message alone, keys that keep successes."""

    def fields(self, request: Request) -> dict[str, Any]:
        """Read a JSON object, or the query of a GET."""
        if request.method != "POST":
            return decode(request.form)
        try:
            given = json.loads(request.form or "{}")
        except (ValueError, RecursionError):
            raise Refusal(400, "The request body is no JSON", code="invalid_json") from None
        if not isinstance(given, dict):
            raise Refusal(400, "The request body must be a JSON object", code="invalid_json")
        return given

    def error(self, refusal: Refusal) -> dict[str, Any]:
        """Return code and message; only what the SDK must tell apart by its type has one."""
        error = {"code": refusal.v2_code or refusal.kind, "message": refusal.message}
        if refusal.kind not in {INVALID, "api_error"}:
            error["type"] = refusal.kind
        return {"error": error}

    def key(self, request: Request) -> str:
        """Return the key with its call: the same key on another API is another one."""
        return f"{request.method} {request.path} {request.key}"

    def window_seconds(self, knobs: Knobs) -> int:
        """30 days."""
        return knobs.v2_key_window_seconds

    def keeps(self, status: int) -> bool:
        """Keep a success; what failed is executed again."""
        return status == OK


V1_DIALECT: Final = V1()
V2_DIALECT: Final = V2()


def of(path: str) -> Dialect:
    """Return the dialect of a path."""
    return V2_DIALECT if path.startswith("/v2/") else V1_DIALECT
