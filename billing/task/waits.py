"""How long a delivery that is put off waits, where, and how often it has: arithmetic and names, no I/O.

A wait doubles from one time to the next, with chance, up to a minute. The broker knows a few waits only (`LEVELS`): a
delivery takes the longest of these that is not longer than its own. Counts travel in the message's headers, apart from
the retries of the user's own, and are taken off when the delivery is admitted.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import Any, Final, Self

from billing.core.errors import InvalidValue

#: How often this delivery has been put off, in all.
WAITS: Final = "billing_waits"
#: How often because its client could not pay, and since when, in milliseconds since the Unix epoch.
EXHAUSTED_WAITS: Final = "billing_exhausted_waits"
EXHAUSTED_SINCE: Final = "billing_exhausted_since"

#: Bounds (L9): how often a delivery waits because something is away: most of a day.
WAITS_MAX: Final = 1_500
WAIT_SECONDS_MAX: Final = 60.0
#: The waits that there are queues for, in milliseconds.
LEVELS: Final = (500, 1_000, 2_000, 4_000, 8_000, 15_000, 30_000, 60_000)
_DOUBLINGS_MAX: Final = 16
#: A count or time that is more is nobody's: with one more, AMQP could not carry it, and it would come back for ever.
_COUNT_END: Final = 10**15

#: What the name of each queue and exchange begins with in which deliveries wait.
PREFIX: Final = "billing.wait."
#: RabbitMQ takes names of 255 bytes.
_NAME_BYTES_MAX: Final = 200


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Waits:
    """How often one delivery has been put off."""

    count: int = 0
    exhausted: int = 0
    exhausted_since: int | None = None

    @property
    def unavailable(self) -> int:
        """How often because something was away."""
        return self.count - self.exhausted

    def once_unavailable(self) -> Self:
        """Return the counts after one more wait for what is away."""
        return dataclasses.replace(self, count=self.count + 1)

    def once_exhausted(self, now_milliseconds: int) -> Self:
        """Return the counts after one more wait for credits."""
        since = now_milliseconds if self.exhausted_since is None else self.exhausted_since
        return dataclasses.replace(self, count=self.count + 1, exhausted=self.exhausted + 1, exhausted_since=since)

    def exhausted_seconds(self, now_milliseconds: int) -> float:
        """Return for how long it has been waiting for credits; a clock that was set back counts as no time."""
        return 0.0 if self.exhausted_since is None else max(0, now_milliseconds - self.exhausted_since) / 1_000

    def headers(self) -> dict[str, int]:
        """Return the counts as they travel with the message."""
        found = {WAITS: self.count}
        if self.exhausted_since is not None:
            found |= {EXHAUSTED_WAITS: self.exhausted, EXHAUSTED_SINCE: self.exhausted_since}
        return found


def read_waits(headers: Mapping[str, Any] | None) -> Waits:
    """Return the counts of a message, or raise `InvalidValue` for a header that somebody else wrote."""
    given = headers or {}
    count, exhausted = (_whole(name, given.get(name, 0)) for name in (WAITS, EXHAUSTED_WAITS))
    since = given.get(EXHAUSTED_SINCE)
    if since is None:  # nobody of ours counts the one without the other
        return Waits(count=max(count, exhausted))
    return Waits(count=max(count, exhausted), exhausted=exhausted, exhausted_since=_whole(EXHAUSTED_SINCE, since))


def without_waits(headers: Mapping[str, Any]) -> dict[str, Any]:
    """Return a message's headers as they were before its first wait: no counts, no trace of the wait queues."""
    kept = {name: value for name, value in headers.items() if name not in (WAITS, EXHAUSTED_WAITS, EXHAUSTED_SINCE)}
    for which in ("x-first-death", "x-last-death"):
        if str(kept.get(f"{which}-queue", "")).startswith(PREFIX):
            for part in ("queue", "exchange", "reason"):
                kept.pop(f"{which}-{part}", None)
    deaths = kept.pop("x-death", None)
    # What is no list of tables was not written by RabbitMQ, which would read it in the next wait queue.
    tables = [death for death in deaths if isinstance(death, Mapping)] if isinstance(deaths, list | tuple) else []
    others = [death for death in tables if not str(death.get("queue", "")).startswith(PREFIX)]
    return kept | {"x-death": others} if others else kept


def wait_seconds(waits: int, first_seconds: float, chance: float) -> float:
    """Return how long to wait next: doubled each time, bounded, spread over a half of it by `chance` (0 to 1)."""
    full: float = min(WAIT_SECONDS_MAX, first_seconds * 2 ** min(waits, _DOUBLINGS_MAX))
    return full * (0.75 + chance / 2)


def level_of(seconds: float) -> int:
    """Return the milliseconds that the broker keeps a delivery which is to wait `seconds`."""
    return max((level for level in LEVELS if level <= seconds * 1_000), default=LEVELS[0])


def queue_name(exchange: str, routing_key: str, milliseconds: int) -> str:
    """Return the name of the queue, and of its exchange, in which deliveries wait that came by an exchange and key.

    The default exchange ("") has one per queue of tasks, which is its routing key: RabbitMQ hands over 32 messages at a
    time, so that those whose own queue was deleted would hold up all others (L10). Another exchange may have any number
    of routing keys, and has one for all of them (L9).
    """
    kind, name = ("exchange", exchange) if exchange else ("queue", routing_key)
    if len(name.encode()) > _NAME_BYTES_MAX:
        name = hashlib.sha256(name.encode()).hexdigest()
    return f"{PREFIX}{kind}.{name}.{milliseconds}"


def _whole(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _COUNT_END:
        raise InvalidValue(name, value, "must be a whole number of at most 15 digits")
    return value
