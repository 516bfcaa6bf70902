"""Searches a model whole: every state that its steps lead to, in the order of their distance from the first one."""

from __future__ import annotations

import collections
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

S = TypeVar("S", bound=Hashable)


class Violation(Exception):
    """A law does not hold in a state."""


def search_states(
    start: S,
    successors: Callable[[S], Iterable[tuple[str, S]]],
    check: Callable[[S, Sequence[tuple[str, S]]], None],
    *,
    states_max: int,
) -> int:
    """Walk through every interleaving; return how many states there are.

    `check` is given each state with the steps that lead on, and raises `Violation`: it is raised with the way to it.
    """
    came_from: dict[S, tuple[S, str] | None] = {start: None}
    queue = collections.deque([start])
    while queue:
        state = queue.popleft()
        steps = list(successors(state))
        try:
            check(state, steps)
        except Violation as violation:
            raise Violation(f"{violation}: {' > '.join(_way(state, came_from))}") from None
        for name, after in steps:
            if after not in came_from:
                came_from[after] = (state, name)
                queue.append(after)
        if len(came_from) > states_max:
            raise AssertionError(f"more than {states_max} states")
    return len(came_from)


def _way(state: S, came_from: Mapping[S, tuple[S, str] | None]) -> list[str]:
    names: list[str] = []
    while (before := came_from[state]) is not None:
        state, name = before
        names.insert(0, name)
    return names
