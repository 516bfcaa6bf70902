"""A great many usage events that follow from a seed, their twins and their poison, and what they must add up to.

Pure, and in bounded memory: event number n is a function of the seed and n, so that any of them can be made again, to
be delivered a second time or to be compared with its row. The sums are kept apart from the product's own code.
"""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import json
import random
from collections.abc import Iterator
from typing import Any, Final

from billing.core.ids import run_id

CLIENTS: Final = tuple(f"client-{number:02}" for number in range(40))
SKUS: Final = ("page", "search", "storage-gib")
#: Of all events: what is delivered once more, and what nobody can use.
TWIN_SHARE: Final = 0.01
POISON_SHARE: Final = 0.001
#: Of the twins: those that another settlement of the same run has made.
OTHER_SHARE: Final = 0.1
#: One run follows the other by so much: a million are eleven days.
STEP_MILLISECONDS: Final = 1_000
_HOUR: Final = 3_600_000

#: Kinds of poison, with words of the reason that each is kept with.
POISON: Final[dict[str, str]] = {
    "no JSON": "malformed",
    "truncated": "truncated",
    "no UTF-8": "utf",
    "a lone surrogate": "surrogate",
    "another version": "version",
    "a field of another type": "Expected `int`",
    "a missing field": "missing required field",
    "negative credits": "credits",
    "credits above 2^53 - 1": "credits",
    "shares that do not add up": "must add up",
    "a bad run id": "Invalid UUID",
    "an id from the far future": "must not be more than a day ahead",
    "a NUL character": "without NUL",
    "an unknown client": "is not a known client",
}

Row = tuple[str, int, str, str, str, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Line:
    """A line of an event, paid by one grant."""

    sku: str
    quantity: int
    credits: int
    grant: int


class Usage:
    """The events of a seed. `first` is the time of the first of them, in milliseconds since the Unix epoch."""

    def __init__(self, seed: int, first: int) -> None:
        self._seed, self._first = seed, first

    def client(self, number: int) -> str:
        """Return who pays for an event."""
        return CLIENTS[self._mixed(number) % len(CLIENTS)]

    def lines(self, number: int) -> list[Line]:
        """Return what was used: of one SKU, in every eighth event of two."""
        mixed = self._mixed(number)
        count = 2 if mixed >> 8 & 7 == 0 else 1
        return [
            Line(
                sku=SKUS[(mixed >> 11) % 3 - line],
                quantity=1 + (mixed >> 13 & 3),
                credits=1 + (mixed >> 15) % 97 + line,
                grant=1 + (mixed >> 22 & 3),
            )
            for line in range(count)
        ]

    def event(self, number: int, settlement: str = "first") -> dict[str, Any]:
        """Return an event, as it was settled first, or by another settlement."""
        client_id, at = self.client(number), self._at(number)
        lines = [
            {
                "sku": line.sku,
                "quantity": line.quantity,
                "credits": line.credits,
                "grants": [{"grant": line.grant, "credits": line.credits}],
            }
            for line in self.lines(number)
        ]
        return {
            "version": 1,
            "run_id": self._run_id(number),
            "client_id": client_id,
            "correlation_id": str(number),
            "root_id": str(number // 10),
            "task": "tests.deliveries",
            "attempt": 1,
            "submitted_at": at,
            "price_version": 1,
            "settlement_id": f"{settlement}-{number}",
            "occurred_at": at + 5,
            "epoch": 1,
            "late": False,
            "lines": lines,
        }

    def rows(self, number: int) -> Iterator[Row]:
        """Yield the rows of an event: run, line, client, correlation id, SKU, quantity, credits."""
        run, client_id = self._run_id(number), self.client(number)
        for position, line in enumerate(self.lines(number)):
            yield run, position, client_id, str(number), line.sku, line.quantity, line.credits

    def hour(self, number: int) -> int:
        """Return the hour of an event's work, in milliseconds since the Unix epoch."""
        at = self._at(number) + 5
        return at - at % _HOUR

    def poison(self, kind: str, number: int) -> bytes:
        """Return a message that cannot be used, unlike every other."""
        event = self.event(number) | {"correlation_id": f"poison-{number}"}
        line, far = event["lines"][0], self._at(number) + 400 * 24 * _HOUR
        text = json.dumps(event).encode()
        # What the whole message is, or what is changed in it; None: it is not there.
        whole = {
            "no JSON": b"<usage number='%d'/>" % number,
            "truncated": text[:-40],
            "no UTF-8": text.replace(b"poison", b"pois\xff\xfe"),
        }
        changed: dict[str, dict[str, Any]] = {
            "a lone surrogate": {"task": "\ud800"},
            "another version": {"version": 9},
            "a field of another type": {"lines": [line | {"quantity": "many"}]},
            "a missing field": {"settlement_id": None},
            "negative credits": {"lines": [line | {"credits": -5}]},
            "credits above 2^53 - 1": {"lines": [line | {"credits": 2**53}]},
            "shares that do not add up": {"lines": [line | {"credits": line["credits"] + 1}]},
            "a bad run id": {"run_id": f"{number}-no-uuid"},
            "an id from the far future": {
                "run_id": str(run_id(event["client_id"], "", nesting=0, nonce="", at_milliseconds=far))
            },
            "a NUL character": {"root_id": "nothing\x00"},
            "an unknown client": {"client_id": "stranger"},
        }
        if kind in whole:
            return whole[kind]
        given = event | changed[kind]
        return json.dumps({name: value for name, value in given.items() if value is not None}).encode()

    def _mixed(self, number: int) -> int:
        value = (number + self._seed) * 0x9E3779B97F4A7C15 & 2**64 - 1
        return (value ^ value >> 29) * 0xBF58476D1CE4E5B9 >> 16 & 2**40 - 1

    def _at(self, number: int) -> int:
        return self._first + number * STEP_MILLISECONDS

    def _run_id(self, number: int) -> str:
        return str(run_id(self.client(number), str(number), nesting=0, nonce="", at_milliseconds=self._at(number)))


class Books:
    """What all that was sent must add up to."""

    def __init__(self, usage: Usage) -> None:
        self._usage = usage
        self.events = self.twins = 0
        #: (client, SKU, hour) to credits and quantity, in sums of their own; (client, grant) to credits.
        self.credits: collections.Counter[tuple[str, str, int]] = collections.Counter()
        self.quantities: collections.Counter[tuple[str, str, int]] = collections.Counter()
        self.spent: collections.Counter[tuple[str, int]] = collections.Counter()
        #: What another settlement took, and is to be given back, once each.
        self.returned: collections.Counter[tuple[str, int]] = collections.Counter()
        self.others: set[int] = set()
        #: By the SHA-256 of what cannot be used: its kind.
        self.poison: dict[bytes, str] = {}

    def add(self, number: int) -> None:
        """Note an event."""
        self.events += 1
        client_id, hour = self._usage.client(number), self._usage.hour(number)
        for line in self._usage.lines(number):
            self.credits[client_id, line.sku, hour] += line.credits
            self.quantities[client_id, line.sku, hour] += line.quantity
            self.spent[client_id, line.grant] += line.credits

    def add_twin(self, number: int, *, other: bool) -> None:
        """Note a second delivery of an event, or its second settlement."""
        self.twins += 1
        if other and number not in self.others:
            self.others.add(number)
            for line in self._usage.lines(number):
                self.returned[self._usage.client(number), line.grant] += line.credits

    def add_poison(self, kind: str, body: bytes) -> None:
        """Note what is to be a dead letter."""
        self.poison[hashlib.sha256(body).digest()] = kind


def portions(
    usage: Usage, books: Books, chance: random.Random, events: int, size: int
) -> Iterator[list[tuple[str, bytes]]]:
    """Yield (client, message) pairs of so many events in portions: each shuffled, with twins and poison in it.

    A twin is of this portion, of a recent one, or of any: minutes or days ago. Another settlement of a run is in a
    later portion than the first.
    """
    kinds = list(POISON)
    # Among few events, too, there is most of the poison.
    poison_share = max(POISON_SHARE, 2 * len(kinds) / events)
    for start in range(0, events, size):
        portion: list[tuple[str, bytes]] = []
        for number in range(start, min(start + size, events)):
            books.add(number)
            portion.append((usage.client(number), json.dumps(usage.event(number)).encode()))
            if chance.random() < TWIN_SHARE:
                other = start > 0 and chance.random() < OTHER_SHARE
                oldest = chance.choice((0, max(0, start - 2 * size)))
                twin = chance.randrange(oldest, start if other else number + 1)
                books.add_twin(twin, other=other)
                settlement = "second" if other else "first"
                portion.append((usage.client(twin), json.dumps(usage.event(twin, settlement)).encode()))
            if chance.random() < poison_share:
                kind = kinds[len(books.poison) % len(kinds)]
                body = usage.poison(kind, number)
                books.add_poison(kind, body)
                portion.append((usage.client(number), body))
        chance.shuffle(portion)
        yield portion
