"""The discrepancies that stand: each is opened once, however often it is seen, and closed when it is gone. Pure.

A thing is a law, a client and a grant. One that differs by another number of credits than before is closed and opened
anew, so that a second lost credit does not hide behind the first.
"""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Collection, Iterable
from typing import Final

from billing.reconciliation.report import DISCREPANCIES_MAX, Discrepancy

GONE: Final = "is gone"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Thing:
    """What a discrepancy is about."""

    law: str
    client_id: str
    grant_id: int | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Standing:
    """A discrepancy that was written down and is not closed."""

    discrepancy_id: int
    thing: Thing
    found: str
    differs_by: int | None


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Changes:
    """What is to be written: those that are gone (with why), and those that are new."""

    closed: tuple[tuple[Standing, str], ...] = ()
    opened: tuple[Discrepancy, ...] = ()


class StandingBook:
    """The discrepancies that stand, by client."""

    def __init__(self, standing: Iterable[Standing]) -> None:
        self._by_client: dict[str, dict[Thing, Standing]] = collections.defaultdict(dict)
        self.count = 0
        for one in standing:
            self.add(one)

    def add(self, one: Standing) -> None:
        """Take one that was written."""
        self._by_client[one.thing.client_id][one.thing] = one
        self.count += 1

    def remove(self, one: Standing) -> None:
        """Forget one that was closed."""
        own = self._by_client.get(one.thing.client_id, {})
        if own.pop(one.thing, None) is not None:
            self.count -= 1
        if not own:
            self._by_client.pop(one.thing.client_id, None)

    def concerns(self, client_id: str) -> bool:
        """Return whether anything of a client stands."""
        return client_id in self._by_client

    def has(self, thing: Thing) -> bool:
        """Return whether one of this thing stands."""
        return thing in self._by_client.get(thing.client_id, {})

    def judge(self, client_id: str, laws: Collection[str], found: Iterable[Discrepancy]) -> Changes:
        """Take all that differs of a client by some laws; return what is new and what is gone by these laws."""
        seen = _by_thing(found)
        own = self._by_client.get(client_id)
        if not seen and not own:
            return Changes()
        closed, opened = [], []
        for thing, one in (own or {}).items():
            now = seen.get(thing)
            if thing.law in laws and now is None:
                closed.append((one, GONE))
            elif now is not None and _moved(one.differs_by, now.differs_by):
                closed.append((one, f"differs by {now.differs_by:,} now, no longer by {one.differs_by:,}"))
                opened.append(now)
        known = own or {}
        room = DISCREPANCIES_MAX - self.count
        opened += [now for thing, now in seen.items() if thing not in known][: max(0, room)]
        return Changes(closed=tuple(closed), opened=tuple(opened))


def thing_of(found: Discrepancy) -> Thing:
    """Return what a discrepancy of a client is about."""
    return Thing(law=found.law, client_id=found.client_id or "", grant_id=found.grant_id)


def _moved(before: int | None, now: int | None) -> bool:
    return before is not None and now is not None and before != now


def _by_thing(found: Iterable[Discrepancy]) -> dict[Thing, Discrepancy]:
    """Return one discrepancy per thing: what a law says twice of the same grant is one text."""
    seen: dict[Thing, Discrepancy] = {}
    for one in found:
        thing = thing_of(one)
        first = seen.get(thing)
        seen[thing] = one if first is None else _joined(first, one)
    return seen


def _joined(first: Discrepancy, second: Discrepancy) -> Discrepancy:
    return dataclasses.replace(
        first,
        found=f"{first.found}; {second.found}",
        rows=first.rows + second.rows,
        differs_by=second.differs_by if first.differs_by is None else first.differs_by,
    )
