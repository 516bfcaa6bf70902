"""Random operations on buckets, as data: the same seed makes the same operations, whatever the buckets answer.

Amounts are small and now and then huge, ids are new and known, calls come again.
"""

from __future__ import annotations

import random
from collections import defaultdict, deque
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from billing.core.credits import CREDITS_MAX
from billing.core.shards import shard_of
from billing.credits.posting import Posting
from billing.credits.terms import ClientState, ClientTerms, GrantTerms
from billing.credits.values import Hold, Settlement
from tests.contract.making import a_hold, a_run, a_settlement
from tests.contract.servers import FUTURE_MS, SHARDS
from tests.contract.weights import LOSSES, TERMS, WEIGHTS

SKUS: Final = ("page", "image", "sku-0", "sku-1")
#: When the runs were minted, so that their ids come again with the seed.
MINTED_MS: Final = 1_700_000_000_000
#: How many of a client's newest runs, and of all settlements, are met again.
_RECENT: Final = 15


@dataclass(frozen=True, slots=True)
class Operation:
    """One call: a verb, or a hand (what a test does to what keeps the buckets), and its arguments."""

    verb: str
    client_id: str
    arguments: tuple[Any, ...] = ()
    keywords: dict[str, Any] = field(default_factory=dict)


class Operations:
    """An endless walk over some clients, by one seed. It knows what it has asked, never what was answered.

    The first client is the rich one, if there is to be one: some of its amounts are next to the largest that there are.
    Holds and grants only become more: a walk of some thousand steps is followed by another with new clients. The ids of
    grants begin at `first_id`.
    """

    def __init__(
        self,
        seed: int,
        clients: Sequence[str],
        *,
        terms: bool = True,
        losses: bool = True,
        shards: int = SHARDS,
        rich: bool = True,
        without: Collection[str] = (),
        first_id: int = 0,
    ) -> None:
        self.seed = seed
        self.random = random.Random(seed)
        #: For what happens beside the walk that the seed stands for.
        self._aside = random.Random(seed)
        self._clients = list(clients)
        self._rich = self._clients[0] if rich else None
        self._shards = shards
        self._name = f"{seed:x}"
        self._count = first_id
        self._runs: list[tuple[str, UUID]] = []
        self._skus: dict[UUID, str] = {}
        self._due: deque[Operation] = deque()
        self._settlements: list[Settlement] = []
        self._grants: defaultdict[str, list[tuple[int, int, GrantTerms]]] = defaultdict(list)
        self._adjustments: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        self._postings: defaultdict[str, list[list[Posting]]] = defaultdict(list)
        self._terms = terms
        chosen = WEIGHTS | (TERMS if terms else {}) | (LOSSES if losses else {})
        chosen = {name: weight for name, weight in chosen.items() if name not in without}
        self._makers: list[Callable[[str], Operation]] = [getattr(self, f"_{name}") for name in chosen]
        self._weights = list(chosen.values())

    def __iter__(self) -> Iterator[Operation]:
        """Open the clients, then go on for ever."""
        for client_id in self._clients:
            if client_id == self._rich:  # it is opened late, by chance
                continue
            yield Operation("open_client", client_id, (client_id,))
        while True:
            yield self.next()

    def next(self) -> Operation:
        """Return the next operation."""
        self._count += 1
        if self._due:
            return self._due.popleft()
        maker = self.random.choices(self._makers, self._weights)[0]
        return maker(self.random.choice(self._clients))

    def _amount(self, client_id: str) -> int:
        if client_id == self._rich and self.random.random() < 0.005:
            return self.random.choice((CREDITS_MAX, CREDITS_MAX - 7, 2**52))
        return self.random.choice((0, 1, *[self.random.randint(1, 60) for _ in range(9)], 400))

    def _known(self, client_id: str) -> tuple[str, UUID]:
        """Return one of the last runs, or one that nobody has seen."""
        if not self._runs or self.random.random() < 0.05:
            return client_id, self._minted(client_id, f"unseen-{self._count}")
        return self.random.choice(self._runs[-_RECENT:])

    def _or_stranger(self, owner: str) -> str:
        """Return the client of a run, or seldom any other one, which has no business with it."""
        return self._aside.choice(self._clients) if self._aside.random() < 0.03 else owner

    def _minted(self, client_id: str, name: str, at_milliseconds: int = MINTED_MS) -> UUID:
        return a_run(client_id, f"{self._name}-{name}", at_milliseconds=at_milliseconds)

    def _sku(self) -> str:
        return self.random.choice(SKUS) if self._terms else "page"

    def _hold(self, client_id: str, run: UUID, *, sku: str, token: str) -> Hold:
        version = self.random.choice((1, 1, 1, 2))
        return a_hold(run, self._amount(client_id), client_id=client_id, token=token, sku=sku, price_version=version)

    # Runs.

    def _reserve(self, client_id: str) -> Operation:
        at = self.random.choices((MINTED_MS, 2**47, 2**48 - 1), (97, 1, 2))[0]
        run = self._minted(client_id, f"task-{self._count}", at)
        self._runs.append((client_id, run))
        sku = self._skus[run] = self._sku()
        return Operation("reserve", client_id, (self._hold(client_id, run, sku=sku, token="token-0"),))

    def _again(self, client_id: str) -> Operation:
        """Come again: the same call, another attempt, another need or another SKU."""
        owner, run = self._known(client_id)
        token = f"token-{self.random.randint(0, 2)}"
        sku = self._sku() if self.random.random() < 0.1 else self._skus.get(run, "page")
        return Operation("reserve", owner, (self._hold(owner, run, sku=sku, token=token),))

    def _settle(self, client_id: str) -> Operation:
        """Use less than was held, as much, or more; held or not; now and then of another client."""
        owner, run = self._known(client_id)
        owner = client_id if self.random.random() < 0.02 else owner
        skus = self.random.sample(SKUS, self.random.choice((1, 1, 2, 3)))
        amounts = [self._amount(owner) // len(skus) for _ in skus]
        settlement = a_settlement(run, *amounts, client_id=owner, skus=skus, settlement_id=f"s{self._count}")
        self._settlements.append(settlement)
        return Operation("settle", owner, (settlement,))

    def _settle_again(self, client_id: str) -> Operation:
        if not self._settlements:
            return self._settle(client_id)
        settlement = self.random.choice(self._settlements[-_RECENT:])
        return Operation("settle", settlement.client_id, (settlement,))

    def _release(self, client_id: str) -> Operation:
        owner, run = self._known(client_id)
        owner = self._or_stranger(owner)
        return Operation("release", owner, (owner, run, f"token-{self.random.choice((0, 0, 1, 2))}"))

    def _renew(self, client_id: str) -> Operation:
        owner, run = self._known(client_id)
        return Operation("renew", owner, ([(owner, run, self.random.choice((None, 50_000.0, 70_000.0)))],))

    def _stage(self, client_id: str) -> Operation:
        owner, run = self._known(client_id)
        head = self.random.choice((b"", b'{"staged":1'))
        token = f"token-{self.random.choice((0, 0, 1))}"
        return Operation("stage", owner, (owner, run, token, b"[%d]" % self._count), {"head": head})

    def _expire(self, client_id: str) -> Operation:
        """Expire a run whose lease is over, or perhaps is not."""
        owner, run = self._known(client_id)
        caller = self._or_stranger(owner)
        expire = Operation("expire", caller, (caller, run))
        if self.random.random() < 0.3:
            return expire
        self._due.append(expire)
        return Operation("end_lease", owner, (owner, run))

    def _overdue(self, client_id: str) -> Operation:
        return Operation("overdue", client_id, (shard_of(client_id, self._shards), 1_000))

    # Grants.

    def _open(self, client_id: str) -> Operation:
        return Operation("open_client", client_id, (client_id,))

    def _grant(self, client_id: str) -> Operation:
        terms = GrantTerms()
        if self._terms:
            terms = GrantTerms(
                priority=self.random.choice((10, 100, 100, 200)),
                expires_ms=self.random.choice((0, FUTURE_MS, FUTURE_MS + 1)),
                skus=self.random.choice(((), (), ("page",), ("image", "sku-0"))),
            )
        credits_ = self.random.choice((30, 100, 500, 2_000))
        if client_id == self._rich and self.random.random() < 0.1:
            credits_ = CREDITS_MAX // 2
        self._grants[client_id].append((self._count, credits_, terms))
        return Operation("grant", client_id, (client_id, self._count, credits_, terms))

    def _grant_again(self, client_id: str) -> Operation:
        if not self._grants[client_id]:
            return self._grant(client_id)
        grant, credits_, terms = self.random.choice(self._grants[client_id][-5:])
        return Operation("grant", client_id, (client_id, grant, credits_ + self.random.choice((0, 0, 1)), terms))

    def _void(self, client_id: str) -> Operation:
        return Operation("void", client_id, (client_id, self._a_grant(client_id)))

    def _adjust(self, client_id: str) -> Operation:
        known = self._adjustments[client_id]
        if not known or self.random.random() > 0.5:
            known.append((self._count, self.random.choice((1, 20, 200))))
        return Operation("adjust", client_id, (client_id, *self.random.choice(known[-3:])))

    def _set_terms(self, client_id: str) -> Operation:
        state = self.random.choice((*[ClientState.ACTIVE] * 18, ClientState.SUSPENDED, ClientState.CLOSED))
        terms = ClientTerms(state=state, overdraft_limit=self.random.choice((0, 0, 50, 500)))
        return Operation("set_terms", client_id, (client_id, terms))

    def _end_grant(self, client_id: str) -> Operation:
        return Operation("end_grant", client_id, (client_id, self._a_grant(client_id)))

    def _lapse(self, client_id: str) -> Operation:
        return Operation("lapse", client_id, (shard_of(client_id, self._shards), 1_000))

    def _a_grant(self, client_id: str) -> int:
        return self.random.choice([*(grant for grant, _, _ in self._grants[client_id][-6:]), self._count])

    def _post(self, client_id: str) -> Operation:
        """Post to some grants, to debt or to a grant that is not there; or what was posted before.

        Epoch 1 stands for the bucket's own, 2 for the one after it.
        """
        known = self._postings[client_id]
        if not known or self.random.random() > 0.2:
            known.append([self._posting(client_id, grant) for grant in self._posted_to(client_id)])
        epoch = 2 if self.random.random() < 0.05 else 1
        return Operation("post", client_id, (client_id, epoch, self.random.choice(known[-3:])))

    def _posted_to(self, client_id: str) -> list[int]:
        count = self.random.choice((1, 1, 3))
        return sorted({self.random.choice((0, *[self._a_grant(client_id)] * 4)) for _ in range(count)})

    def _posting(self, client_id: str, grant: int) -> Posting:
        """Return totals that stay near 0, whatever was posted before: else all that is given back is soon too much."""
        credits_ = self.random.choice((0, 2, 5, 20, 60, -1, -5, -20))
        if client_id == self._rich and self.random.random() < 0.1:
            credits_ = self.random.choice((CREDITS_MAX, -CREDITS_MAX))
        restored = self.random.choice((*[0] * 8, 6, -6)) if grant else 0
        entered = (0, 0, 3, 30)[self._count % 4] if grant else 0
        return Posting(grant_id=grant, version=self._count, credits=credits_, restored=restored, entered=entered)

    # What changes no credits, and what is lost and comes back.

    def _forget(self, client_id: str) -> Operation:
        return Operation("forget_oldest", client_id, (shard_of(client_id, self._shards), self.random.randint(1, 60)))

    def _assert(self, client_id: str) -> Operation:
        owner, run = self._known(client_id)
        sku = self._skus.get(run, "page")
        return Operation("assert_hold", owner, (self._hold(owner, run, sku=sku, token="*"),))

    def _mark_logged(self, client_id: str) -> Operation:
        owner, run = self._known(client_id)
        return Operation("mark_logged", owner, (owner, run, f"logged{self._count}"))

    def _lose(self, client_id: str) -> Operation:
        if self._aside.random() < 0.5:
            return Operation("lose_bucket", client_id, (client_id,))
        self._due.append(Operation("open_client", client_id, (client_id,)))
        return Operation("lose_string", client_id, (client_id,))

    def _close(self, client_id: str) -> Operation:
        return Operation("close", client_id, (shard_of(client_id, self._shards),))

    def _verify(self, client_id: str) -> Operation:
        return Operation("verify", client_id, (shard_of(client_id, self._shards),), {"expected": None})

    def _rebuild(self, client_id: str) -> Operation:
        """Rebuild at a later epoch, the same, or an older one; mostly of a shard that is closed for it."""
        closed = self.random.random() < 0.8
        return Operation("rebuild_as", client_id, (client_id, self.random.choice((-1, 0, 1, 1, 1))), {"closed": closed})
