"""What goes wrong on request: a script of faults, each for the next calls that match it.

Guarantee: a fault strikes `count` times and is gone; calls that match none are answered as usual. Pure: the handlers
carry it out.
"""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Mapping
from typing import Any, Final, Literal, get_args

from billing.core.errors import InvalidValue

Kind = Literal[
    "drop",  # close the connection, nothing executed
    "hang",  # never answer, nothing executed
    "slow",  # wait `seconds`, during the execution, before the commit
    "rate_limit",  # 429, nothing executed, nothing saved
    "unavailable",  # 503, nothing executed, nothing saved
    "error",  # 500, nothing committed, and the key keeps the 500
    "commit_then_close",  # execute and commit, then close the connection
    "commit_then_error",  # execute and commit, then 500, and the key keeps the 500
    "commit_then_hang",  # execute and commit, then never answer
    "drop_later",  # answer a meter event with 200, and never count it: the error `code` is reported later
]
COUNT_MAX: Final = 1_000_000
SECONDS_MAX: Final = 60.0
FAULTS_MAX: Final = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault. `path` is a shell pattern; `after` calls that match are let through first.

    `customer` limits it to the calls of one customer; `should_retry` is the header of a 429, 500 or 503; `code` is of
    `drop_later`.
    """

    kind: Kind
    path: str = "/v1/*"
    method: str = "*"
    customer: str | None = None
    after: int = 0
    count: int = 1
    seconds: float = 1.0
    should_retry: bool | None = None
    code: str = "meter_event_customer_not_found"

    def matches(self, method: str, path: str, customer: str | None) -> bool:
        """Whether a call is one of this fault's."""
        if self.kind == "drop_later" and not path.endswith("/meter_events"):
            return False
        return (
            fnmatch.fnmatchcase(path, self.path) and self.method in {"*", method} and self.customer in {None, customer}
        )

    @property
    def headers(self) -> dict[str, str]:
        """The header that tells the SDK whether to retry."""
        return {} if self.should_retry is None else {"Stripe-Should-Retry": str(self.should_retry).lower()}


def parse(given: Mapping[str, Any]) -> Fault:
    """Return the fault that a control request describes; `InvalidValue` when it is none."""
    known = {field.name for field in dataclasses.fields(Fault)}
    for name in given:
        if name not in known:
            raise InvalidValue("fault", name, f"must be one of: {', '.join(sorted(known))}")
    if given.get("kind") not in get_args(Kind):
        raise InvalidValue("kind", given.get("kind"), f"must be one of: {', '.join(get_args(Kind))}")
    for name, least in (("after", 0), ("count", 1)):
        value = given.get(name, least)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= COUNT_MAX:
            raise InvalidValue(name, value, f"must be a whole number from {least} to {COUNT_MAX}")
    seconds = given.get("seconds", 0)
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds <= SECONDS_MAX:
        raise InvalidValue("seconds", seconds, f"must be a number from 0 to {SECONDS_MAX:g}")
    for name, kind in (
        ("path", str),
        ("method", str),
        ("customer", str | None),
        ("code", str),
        ("should_retry", bool | None),
    ):
        if name in given and not isinstance(given[name], kind):
            raise InvalidValue(name, given[name], "is of the wrong type")
    return Fault(**given)


class FaultScript:
    """The faults that are still to come, in the order in which they were given."""

    def __init__(self) -> None:
        self._faults: list[Fault] = []

    def __bool__(self) -> bool:
        return bool(self._faults)

    def add(self, fault: Fault) -> None:
        """Append a fault."""
        if len(self._faults) >= FAULTS_MAX:
            raise InvalidValue("fault", fault.kind, f"must be one of at most {FAULTS_MAX} at a time")
        self._faults.append(fault)

    def take(self, method: str, path: str, customer: str | None) -> Fault | None:
        """Return the first fault that strikes this call, and count it."""
        for place, fault in enumerate(self._faults):
            if not fault.matches(method, path, customer):
                continue
            if fault.after:
                self._faults[place] = dataclasses.replace(fault, after=fault.after - 1)
                continue
            if fault.count > 1:
                self._faults[place] = dataclasses.replace(fault, count=fault.count - 1)
            else:
                del self._faults[place]
            return fault
        return None

    def clear(self) -> None:
        """Forget all faults."""
        self._faults.clear()

    def list(self) -> list[dict[str, Any]]:
        """Return the faults that have not struck yet."""
        return [dataclasses.asdict(fault) for fault in self._faults]
