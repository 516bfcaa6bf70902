"""How many of a client's parked tasks its bucket can pay for together, in their order. Pure.

The order is strict: what cannot be paid yet keeps those behind it waiting, or a client's big tasks would starve behind
its small ones. What was handed over and has not reserved yet is taken off first: the bucket does not know of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from billing.credits.terms import ORDINARY, ClientState
from billing.credits.values import Balance


def affordable(balance: Balance, under_way: Mapping[str, int], waiting: Sequence[tuple[str, int]]) -> int:
    """Return how many of the tasks `waiting`, as (SKU, credits), can start now.

    `under_way`: the credits, by SKU, of tasks that were handed over and have not reserved yet.
    """
    room = balance.terms.overdraft_limit - balance.owed
    if balance.terms.state is not ClientState.ACTIVE or room < 0:
        return 0
    purse = _Purse(balance, room)
    for sku, credits_ in under_way.items():
        purse.take(sku, min(credits_, purse.has(sku)))
    for count, (sku, credits_) in enumerate(waiting):
        if purse.has(sku) < credits_:
            return count
        purse.take(sku, credits_)
    return len(waiting)


class _Purse:
    """What a bucket has, spent as `reserve` would: grants in burn order, the overdraft last."""

    def __init__(self, balance: Balance, room: int) -> None:
        self._grants = {grant.grant_id: grant.available for grant in balance.grants}
        self._order = balance.order
        self._terms = balance.grant_terms
        self._room = room

    def has(self, sku: str) -> int:
        return sum(self._grants[grant_id] for grant_id in self._fitting(sku)) + self._room

    def take(self, sku: str, credits_: int) -> None:
        for grant_id in self._fitting(sku):
            taken = min(credits_, self._grants[grant_id])
            self._grants[grant_id] -= taken
            credits_ -= taken
        self._room -= credits_

    def _fitting(self, sku: str) -> list[int]:
        return [grant_id for grant_id in self._order if self._terms.get(grant_id, ORDINARY).fits(sku)]
