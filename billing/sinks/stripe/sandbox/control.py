"""What tests, demo and simulator say to a running stand-in, in Python.

Each method is one control request; a refusal is `Rejected` with the stand-in's line.
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import urlencode

import httpx

from billing.core.errors import Rejected, Unreachable

TIMEOUT_SECONDS: Final = 10.0


class SandboxControl:
    """The control side of the stand-in at `url`. Close it, or use it as a context."""

    def __init__(self, url: str) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_SECONDS, trust_env=False)

    def reset(self) -> None:
        """Forget everything: objects, events, answers, faults, knobs, time."""
        self._call("POST", "reset")

    def knobs(self, **changes: object) -> None:
        """Turn knobs; see `Knobs` for their names."""
        self._call("POST", "knobs", changes)

    def fault(self, kind: str, **details: object) -> None:
        """Let the next calls that match fail; see `Fault` for kinds and details."""
        self._call("POST", "faults", {"kind": kind, **details})

    def clear_faults(self) -> None:
        """Forget the faults that have not struck, and end those that hold a call up (`slow`, `hang`)."""
        self._call("DELETE", "faults")

    def advance(self, seconds: int) -> None:
        """Move the stand-in's time."""
        self._call("POST", "clock", {"advance_seconds": seconds})

    def set_time(self, timestamp: int) -> None:
        """Stop the stand-in's time at this second since the Unix epoch."""
        self._call("POST", "clock", {"frozen_at": timestamp})

    def state(self) -> dict[str, Any]:
        """Return counts, calls, faults, knobs, time, and `totals`: customer → event name → what would be billed."""
        return self._call("GET", "state")

    def total(self, customer: str, event_name: str) -> int:
        """Return what would be billed to a customer, whatever summaries show yet."""
        return int(self.state()["totals"].get(customer, {}).get(event_name, 0))

    def events(self) -> list[dict[str, Any]]:
        """Return the events that were accepted, in the order of their receipt; the first 100,000."""
        found: list[dict[str, Any]] = self._call("GET", "events")["events"]
        return found

    def billed(self, customer: str, event_name: str) -> int:
        """Return the units on a customer's final invoices and in its invoice items, waiting ones too.

        An invoice item counts for the `event_name` in its metadata; one that names none, for every event name.
        """
        query = urlencode({"customer": customer, "event_name": event_name})
        return int(self._call("GET", f"billed?{query}")["billed"])

    def requests(self) -> list[dict[str, Any]]:
        """Return the last 10,000 requests, oldest first: method, path, status, idempotency_key, fault, …."""
        found: list[dict[str, Any]] = self._call("GET", "requests")["requests"]
        return found

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _call(self, method: str, what: str, body: dict[str, object] | None = None) -> dict[str, Any]:
        try:
            answer = self._client.request(method, f"/sandbox/{what}", json=body)
        except httpx.HTTPError as error:
            raise Unreachable(f"stand-in for Stripe: {self.url}: does not answer: {type(error).__name__}") from None
        if answer.status_code != httpx.codes.OK:
            raise Rejected(f"stand-in for Stripe: {answer.text.strip()}")
        found: dict[str, Any] = answer.json()
        return found
