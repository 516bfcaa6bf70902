"""Where a sink reports to, as the suite sees it: a second implementation of `MeterSink` brings a `Place` of its own.

It is added to `PLACES` in the conftest beside; then every test of this folder runs on it.
"""

from __future__ import annotations

import itertools
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Protocol

from billing.sinks.sink import MeterSink, Payload

#: Where every test begins.
NOON: Final = datetime.fromtimestamp(1_795_262_400, UTC)
MINUTE: Final = timedelta(minutes=1)
HOUR: Final = timedelta(hours=1)
UNITS: Final = 5
KEY: Final = "sk_test_contract0000000"
WRONG_KEY: Final = "sk_tost_contractsecret0"
_NUMBERS: Final = itertools.count(1)


class Place(Protocol):
    """An empty account with a meter, for one test. Its time stands still until it is moved."""

    event_name: str

    def sink(self, *, key: str = KEY) -> MeterSink:
        """Make a sink; the place closes it in the end."""
        ...

    def sink_without_server(self) -> MeterSink:
        """Make a sink that reaches nobody."""
        ...

    def customer(self) -> str:
        """Make a customer with a subscription."""
        ...

    def delete(self, customer_id: str) -> None:
        """Delete a customer."""
        ...

    def now(self) -> datetime:
        """Return the place's time."""
        ...

    def advance(self, by: timedelta) -> None:
        """Move it on."""
        ...

    def lag(self, by: timedelta) -> None:
        """Let what is sent show so much later."""
        ...

    def fault(self, kind: str) -> None:
        """Let the next call that sends fail, as the stand-in's faults do: `drop`, `commit_then_close`, `rate_limit`."""
        ...

    def close(self) -> None:
        """Close every sink."""
        ...


def payload(place: Place, customer_id: str, **more: Any) -> Payload:
    """Return an increment of an identifier, and as a rule a minute, of its own."""
    number = next(_NUMBERS)
    given: dict[str, Any] = {
        "identifier": f"b1-contract-{number}",
        "event_name": place.event_name,
        "customer_id": customer_id,
        "units": UNITS,
        "event_at": NOON - HOUR - number % 1_000 * MINUTE + timedelta(seconds=30),
    }
    return Payload(**(given | more))


def key(of: Payload, attempt: int = 1) -> str:
    """Return the idempotency key of an attempt."""
    return f"{of.identifier}#{attempt}"
