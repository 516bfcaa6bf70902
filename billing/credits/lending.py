"""Lends grants to holds that must be lent anew: each in its turn and in burn order, and nobody in vain. Pure.

Who is left uncovered by that makes others move to grants which fit them too, so that no hold is uncovered where some
lending covers all of them. It ends: each move covers more, along a shortest way, over at most as many kinds of holds
as there are sets of grants that a hold may use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

#: The grants that holds of one kind may use.
_Kind = tuple[int, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class Claim:
    """A hold: how much it needs, and the grants that it may be lent from, in burn order."""

    run_id: UUID
    need: int
    usable: tuple[int, ...]


def lend(
    available: dict[int, int], held: dict[int, int], claims: Sequence[Claim], loans: Mapping[UUID, dict[int, int]]
) -> None:
    """Lend to each claim what it lacks, as far as there is some; the books change. `loans` is what each was lent."""
    short = False
    for claim in claims:
        lacking = _lacking(claim, loans)
        for grant in claim.usable if lacking else ():
            if part := min(available[grant], lacking):
                _give(loans[claim.run_id], grant, part)
                available[grant] -= part
                held[grant] += part
                lacking -= part
        short = short or lacking > 0
    if short:
        _Exchange(available, held, claims, loans).cover()


def _lacking(claim: Claim, loans: Mapping[UUID, Mapping[int, int]]) -> int:
    return claim.need - sum(loans[claim.run_id].values())


def _give(shares: dict[int, int], grant: int, part: int) -> None:
    """Change what a hold is lent by a grant; nothing is no share."""
    if part:
        shares[grant] = shares.get(grant, 0) + part
        if not shares[grant]:
            del shares[grant]


class _Exchange:
    """Augmenting ways between holds, which may use the same grants, and what is free (Edmonds and Karp)."""

    def __init__(
        self,
        available: dict[int, int],
        held: dict[int, int],
        claims: Sequence[Claim],
        loans: Mapping[UUID, dict[int, int]],
    ) -> None:
        self._available, self._held, self._loans = available, held, loans
        self._kinds: dict[_Kind, list[Claim]] = {}
        for claim in claims:
            self._kinds.setdefault(claim.usable, []).append(claim)
        self._lent: dict[_Kind, dict[int, int]] = {kind: {} for kind in self._kinds}
        for claim in claims:
            for grant, part in loans[claim.run_id].items():
                _give(self._lent[claim.usable], grant, part)

    def cover(self) -> None:
        """Cover what some lending covers, the first claims first."""
        for kind, claims in self._kinds.items():
            while (lacking := sum(_lacking(claim, self._loans) for claim in claims)) and (way := self._way(kind)):
                self._move(kind, way, lacking)

    def _way(self, kind: _Kind) -> list[tuple[_Kind, int]]:
        """Return who takes which grant, from the one that is free back to the kind that lacks; nothing if none is."""
        gave_up: dict[_Kind, int | None] = {kind: None}
        takers: dict[int, _Kind] = {}
        waiting = [kind]
        for taker in waiting:
            for grant in taker:
                if grant in takers:
                    continue
                takers[grant] = taker
                if self._available[grant]:
                    return list(_back(takers, gave_up, grant))
                for other, lent in self._lent.items():
                    if other not in gave_up and lent.get(grant):
                        gave_up[other] = grant
                        waiting.append(other)
        return []

    def _move(self, kind: _Kind, way: list[tuple[_Kind, int]], lacking: int) -> None:
        """Move as much as the narrowest place of a way lets through."""
        (_, free), *_ = way
        given_up = [(taker, way[place + 1][1]) for place, (taker, _) in enumerate(way[:-1])]
        part = min([lacking, self._available[free], *(self._lent[taker][grant] for taker, grant in given_up)])
        self._available[free] -= part
        self._held[free] += part
        for (taker, grant), (_, old) in zip(way, given_up, strict=False):
            self._swap(taker, old, grant, part)
        self._take(kind, way[-1][1], part)

    def _swap(self, kind: _Kind, old: int, new: int, credits_: int) -> None:
        _give(self._lent[kind], old, -credits_)
        _give(self._lent[kind], new, credits_)
        for claim in self._kinds[kind]:
            shares = self._loans[claim.run_id]
            if part := min(credits_, shares.get(old, 0)):
                _give(shares, old, -part)
                _give(shares, new, part)
                credits_ -= part

    def _take(self, kind: _Kind, grant: int, credits_: int) -> None:
        _give(self._lent[kind], grant, credits_)
        for claim in self._kinds[kind]:
            if part := min(credits_, _lacking(claim, self._loans)):
                _give(self._loans[claim.run_id], grant, part)
                credits_ -= part


def _back(
    takers: Mapping[int, _Kind], gave_up: Mapping[_Kind, int | None], grant: int | None
) -> Iterator[tuple[_Kind, int]]:
    while grant is not None:
        yield takers[grant], grant
        grant = gave_up[takers[grant]]
