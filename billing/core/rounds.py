"""Visits shards so that a node which does not answer delays no other node's shards beyond one wait (L9, L10). Pure.

What answered goes first, in the order given. A node that was silent is asked by one shard, at the end of a round, after
a pause that grows to a bound; only when it answers do its other shards follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from billing.core.clock import Clock
from billing.core.errors import Refusing, Unreachable

#: Nodes that fall silent, after which a round ends: each may cost a wait (L9). The next round begins with the others.
SILENT_MAX: Final = 4
#: Silent nodes that are remembered: one that is forgotten is only asked sooner (L9).
REMEMBERED_MAX: Final = 1_000
#: The longest pause is 30 s: at the second failure 2 s, then 6, 14 and 30; after the first one there is none.
_DOUBLINGS_MAX: Final = 5


@dataclass(frozen=True, kw_only=True, slots=True)
class _Silence:
    failures: int
    #: The monotonic instant from which on the node is asked again.
    until: float


class Rounds:
    """Remembers who was silent, between the rounds of one job."""

    def __init__(self, node_of: Callable[[int], str], clock: Clock) -> None:
        self._node_of = node_of
        self._clock = clock
        #: By node, the one that was asked last at the end.
        self._silent: dict[str, _Silence] = {}
        #: The shards at which somebody was silent or refused: others of their nodes come first.
        self._last: set[int] = set()

    def visit(self, shards: Iterable[int], work: Callable[[int], int | None]) -> int:
        """Do the work of each shard; return the sum of what it returned. None: it asked nobody.

        `Unreachable` leaves out the node's other shards, `Refusing` the shard alone. Raises the first of them if no
        shard answered.
        """
        done, answered = 0, False
        first: Unreachable | None = None
        left_out: set[str] = set()
        for shard in self._in_order(list(shards)):
            # Before the work, which may find out that another node has taken over.
            node = self._node_of(shard)
            if node in left_out:
                continue
            try:
                found = work(shard)
            except Unreachable as error:
                first = first or error
                self._last.add(shard)
                if isinstance(error, Refusing):
                    continue
                left_out.add(node)
                self._note(node)
                if len(left_out) == SILENT_MAX:
                    break
            else:
                if found is None:
                    continue
                done, answered = done + found, True
                self._silent.pop(node, None)
                self._last.discard(shard)
        if first is not None and not answered:
            raise first
        return done

    def _in_order(self, shards: list[int]) -> list[int]:
        """Return who is visited: those of nodes that answered; last those of one silent node whose pause is over."""
        silent: dict[str, list[int]] = {node: [] for node in self._silent}
        answering: list[int] = []
        for shard in sorted(shards, key=self._last.__contains__):
            silent.get(self._node_of(shard), answering).append(shard)
        # Where nobody answered there is nobody to protect: all are asked, the one that was asked longest ago first.
        now, behind = self._clock.monotonic(), [node for node, theirs in silent.items() if theirs]
        if answering:
            behind = [node for node in behind if self._silent[node].until <= now][:1]
        return answering + [shard for node in behind for shard in silent[node]]

    def _note(self, node: str) -> None:
        before = self._silent.pop(node, None)
        failures = min(_DOUBLINGS_MAX, 1 if before is None else before.failures + 1)
        self._silent[node] = _Silence(failures=failures, until=self._clock.monotonic() + 2**failures - 2)
        if len(self._silent) > REMEMBERED_MAX:
            del self._silent[next(iter(self._silent))]
