"""What could not be compared, and how often in a row: told once it has been so for some passes. Pure and bounded."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any, Final

#: Passes in a row without a comparison after which a client is told as not compared.
PASSES_MAX: Final = 3
#: Clients that are remembered, and those that are named (L9).
_KEPT_MAX: Final = 10_000
NAMED_MAX: Final = 20


class Missed:
    """Counts, per client and law, the comparisons that did not come about since the last one that did."""

    def __init__(self) -> None:
        self._times: dict[tuple[str, str], int] = {}
        self._reasons: dict[tuple[str, str], str] = {}
        self._told: set[tuple[str, str]] = set()

    def __bool__(self) -> bool:
        return bool(self._times)

    def missed(self, client_id: str, law: str, reason: str) -> None:
        """Note that a client could not be compared."""
        key = (client_id, law)
        if key in self._times or len(self._times) < _KEPT_MAX:
            self._times[key] = self._times.get(key, 0) + 1
            self._reasons[key] = reason

    def compared(self, client_id: str, law: str) -> None:
        """Note that it was."""
        key = (client_id, law)
        if self._times.pop(key, None) is not None:
            del self._reasons[key]
            self._told.discard(key)

    def lasting(self) -> dict[str, list[str]]:
        """Return the clients that were not compared for some passes, by the reason."""
        found: dict[str, list[str]] = collections.defaultdict(list)
        for key, times in self._times.items():
            if times >= PASSES_MAX:
                found[f"{key[1]}: {self._reasons[key]}"].append(key[0])
        return dict(found)

    def untold(self) -> dict[str, list[str]]:
        """Return those of them that were not told yet, and take them as told."""
        found: dict[str, list[str]] = collections.defaultdict(list)
        for key, times in self._times.items():
            if times >= PASSES_MAX and key not in self._told:
                self._told.add(key)
                found[f"{key[1]}: {self._reasons[key]}"].append(key[0])
        return dict(found)


def summed(lasting: Mapping[str, list[str]]) -> dict[str, dict[str, Any]]:
    """Return how many clients there are by reason, and the first of them."""
    return {
        reason: {"clients": len(clients), "named": sorted(clients)[:NAMED_MAX]} for reason, clients in lasting.items()
    }
