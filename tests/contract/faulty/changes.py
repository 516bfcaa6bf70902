"""What a process writes to the ledger and then brings into buckets: grants, voids, adjustments, terms.

A row that was not taken stays open and is applied again, the oldest of a client first.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Callable
from enum import Enum
from typing import Final

from billing.credits.granting import AdjustOutcome, AdjustReply, TermsOutcome, VoidOutcome
from billing.credits.terms import ClientState, ClientTerms, GrantTerms
from billing.credits.values import GrantOutcome
from tests.contract.faulty.calls import Calls
from tests.contract.faulty.reserving import AGAIN_EVERY
from tests.contract.faulty.values import Breach, MovedClock, Row, shard

#: Ids of rows that one process may give.
_IDS: Final = 10**9
_DONE: Final = ("GRANTED", "VOIDED", "ADJUSTED", "SET", "ALREADY")
#: They wait: for a place among the usable grants, or for the grant that is voided.
_WAITING: Final = (GrantOutcome.TOO_MANY, VoidOutcome.UNKNOWN_GRANT)

#: The answer to what came before; a void of a grant that has expired says the same each time.
_SAME: Final = (
    GrantOutcome.ALREADY,
    VoidOutcome.ALREADY,
    VoidOutcome.VOIDED,
    AdjustOutcome.ALREADY,
    TermsOutcome.SET,
)


class Changes:
    """The rows of one process."""

    def __init__(self, calls: Calls, process: int, chance: random.Random, clock: MovedClock) -> None:
        self._calls, self._chance, self._clock = calls, chance, clock
        self._number = process * _IDS
        self._owned: set[str] = set()
        self._open: defaultdict[str, list[Row]] = defaultdict(list)
        self._grants: defaultdict[str, list[int]] = defaultdict(list)
        self._terms: dict[str, ClientTerms] = {}
        #: Rows that are new, or were applied, since they were told last.
        self.told: list[Row] = []

    def own(self, clients: set[str]) -> None:
        """Give terms to these clients from now on; nobody else does."""
        self._owned = clients

    def is_stopped(self, client_id: str) -> bool:
        """Whether a client's bucket is known to admit nothing, and nobody changes that meanwhile."""
        terms = self._terms.get(client_id)
        if terms is None or any(row.kind == "terms" for row in self._open.get(client_id, ())):
            return False
        return terms.state is not ClientState.ACTIVE

    def write(self, client_id: str) -> None:
        """Write a row of a client; it is not applied yet."""
        self._number += 1
        row = Row(kind="grant", row_id=self._number, client_id=client_id)
        kind = self._chance.choices(("grant", "adjust", "terms", "void"), (10, 3, 4, 2))[0]
        if (client_id not in self._owned and kind == "terms") or not self._grants[client_id]:
            kind = "grant"
        row.kind = kind
        match kind:
            case "grant":
                row.grant_id, row.credits = row.row_id, self._chance.choice((20, 50, 100, 300))
                row.terms = self._grant_terms()
                self._grants[client_id].append(row.grant_id)
            case "adjust":
                row.credits = self._chance.choice((1, 20, 200))
            case "void":
                grants = self._grants[client_id]
                row.grant_id, row.at_ms = grants.pop(self._chance.randrange(len(grants))), self._clock.true_ms
            case _:
                stopped = self._chance.choice((ClientState.SUSPENDED, ClientState.CLOSED))
                state = self._chance.choice((*[ClientState.ACTIVE] * 3, stopped))
                if client_id in self._terms and self._terms[client_id].state is not ClientState.ACTIVE:
                    state = ClientState.ACTIVE
                row.client = ClientTerms(state=state, overdraft_limit=self._chance.choice((0, 100, 100, 200)))
                self._terms[client_id] = row.client
        self._open[client_id].append(row)
        self.told.append(row)

    def _grant_terms(self) -> GrantTerms:
        """Return terms of a grant: some have an end that comes while they are used."""
        ends_ms = self._clock.true_ms + self._chance.randint(200, 5_000)
        return GrantTerms(
            priority=self._chance.choice((10, 100, 100, 200)),
            expires_ms=self._chance.choice((0, 0, ends_ms)),
            skus=self._chance.choice(((), (), (), ("page",), ("image", "sku-0"))),
        )

    @property
    def clients(self) -> list[str]:
        """Return the clients that have open rows."""
        return [client_id for client_id, rows in self._open.items() if rows]

    def apply(self, client_id: str) -> bool:
        """Bring a client's open rows into its bucket, the oldest first; False where one was not answered."""
        answered = True
        for row in list(self._open[client_id]):
            outcome = self._apply(row)
            if outcome is None:
                answered = False
                break
            if outcome.name in _DONE:
                row.applied = True
                self._open[client_id].remove(row)
                self.told.append(row)
            elif outcome not in _WAITING:
                message = f"L6: {row} was answered {outcome}"
                raise Breach(message)
        return answered

    def _apply(self, row: Row) -> Enum | None:
        act = self._act(row)
        reply = self._calls.call(shard(row.client_id), row.kind, act)
        # What waits for its turn may have it the next moment.
        if _name(reply) in _DONE and self._calls.once_in(AGAIN_EVERY):
            self._calls.counts["duplicated commands"] += 1
            again = self._calls.call(shard(row.client_id), f"{row.kind} again:", act)
            if again is not None and getattr(again, "outcome", again) not in _SAME:
                message = f"L4: {row} came twice, and was answered {again}"
                raise Breach(message)
            if isinstance(again, AdjustReply) and isinstance(reply, AdjustReply) and again.grants != reply.grants:
                message = f"L2: {row} took {reply.grants}, and said {again.grants} when it came again"
                raise Breach(message)
        if isinstance(reply, AdjustReply):
            row.shares = dict(reply.grants)
            return reply.outcome
        return reply if isinstance(reply, Enum) else None

    def _act(self, row: Row) -> Callable[[], object]:
        buckets = self._calls.buckets
        match row.kind:
            case "grant":
                return lambda: buckets.grant(row.client_id, row.grant_id, row.credits, row.terms)
            case "void":
                return lambda: buckets.void(row.client_id, row.grant_id)
            case "adjust":
                return lambda: buckets.adjust(row.client_id, row.row_id, row.credits)
            case _:
                return lambda: buckets.set_terms(row.client_id, row.client)

    def forget(self, hot: str) -> None:
        """Forget every client but one."""
        for client_id in {*self._open, *self._grants, *self._terms} - {hot}:
            self._open.pop(client_id, None)
            self._grants.pop(client_id, None)
            self._terms.pop(client_id, None)


def _name(reply: object) -> str:
    return getattr(getattr(reply, "outcome", reply), "name", "")
