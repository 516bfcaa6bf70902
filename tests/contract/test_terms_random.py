"""Random walks over grants with terms, overdraft, states, voids, adjustments and ends: bucket and model agree.

Time passes by hand: a grant's expiry is set back in the bucket, so that no walk depends on how fast it goes.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.terms import ClientState, ClientTerms, GrantTerms
from tests.contract.making import a_hold, a_run, a_settlement
from tests.contract.servers import SHARDS, Server
from tests.contract.test_buckets_random import CLIENTS, Walk

STEPS = 2_000
#: Long after any test.
FUTURE_MS = 4_000_000_000_000
SKUS = ("page", "image", "sku-0", "sku-1")


class TermsWalk(Walk):
    """The walk of ordinary grants, with all that a grant and a client can be told besides."""

    def __init__(self, buckets: Buckets, server: Server, seed: int) -> None:
        super().__init__(buckets, seed)
        self.client: Any = server.client()
        self.adjustments = 0
        self.names = [
            *["reserve"] * 12,
            *["again"] * 4,
            *["settle"] * 8,
            *["release"] * 5,
            *["grant"] * 5,
            *["void", "adjust", "set_terms", "set_terms", "pass_time", "pass_time", "lapse", "settle_again", "renew"],
        ]

    def reserve(self, client_id: str) -> str:
        """Reserve for a new run of some SKU."""
        run = a_run(client_id, f"task-{len(self.runs)}")
        self.runs.append((client_id, run))
        sku = self.random.choice(SKUS)
        return self._reserve(a_hold(run, self.amount(), client_id=client_id, token="token-0", sku=sku))

    def settle(self, client_id: str) -> str:
        """Settle a run with lines of several SKUs."""
        client_id, run = self.a_known_run(client_id)
        skus = self.random.sample(SKUS, self.random.choice((1, 1, 2)))
        amounts = [self.amount() // len(skus) for _ in skus]
        return self._settle(a_settlement(run, *amounts, client_id=client_id, skus=skus))

    def grant(self, client_id: str) -> str:
        """Grant with any terms."""
        self.grants += 1
        terms = GrantTerms(
            priority=self.random.choice((10, 100, 100, 200)),
            expires_ms=self.random.choice((0, FUTURE_MS, FUTURE_MS + 1)),
            skus=self.random.choice(((), (), ("page",), ("image", "sku-0"))),
        )
        credits_ = self.random.choice((30, 100, 300))
        outcome = self.buckets.grant(client_id, self.grants, credits_, terms).value
        assert outcome == self.model.grant(client_id, self.grants, credits_, terms)
        return f"grant {outcome}"

    def void(self, client_id: str) -> str:
        """Void a grant of the client, if it has one."""
        bucket = self.model.buckets.get(client_id)
        grant = self.random.choice([*(bucket.granted if bucket else ()), self.grants + 1][-6:])
        if bucket is None:
            assert self.buckets.void(client_id, grant).value == "UNKNOWN_CLIENT"
            return "void UNKNOWN_CLIENT"
        outcome = self.buckets.void(client_id, grant).value
        in_use = bucket.available.get(grant, 0) or bucket.held.get(grant, 0)
        expected = self.model.void(client_id, grant)
        # Of a grant that is used up, and perhaps has left the bucket, each void may say that it was the first.
        assert outcome == expected or (not in_use and {outcome, expected} == {"VOIDED", "ALREADY"})
        return f"void {outcome}"

    def adjust(self, client_id: str) -> str:
        """Take credits away, once more perhaps."""
        if client_id not in self.model.buckets:
            return "adjust UNKNOWN_CLIENT"
        known = [*self.model.buckets[client_id].adjustments]
        self.adjustments += 1
        adjustment = self.random.choice(known) if known and self.random.random() < 0.3 else self.adjustments
        credits_ = self.random.choice((1, 20, 200, 2_000))
        reply = self.buckets.adjust(client_id, adjustment, credits_)
        assert (reply.outcome.value, reply.grants) == self.model.adjust(client_id, adjustment, credits_)
        return f"adjust {reply.outcome.value}{' debt' if 0 in reply.grants else ''}"

    def set_terms(self, client_id: str) -> str:
        """Change state and limit."""
        if client_id not in self.model.buckets:
            return "set_terms UNKNOWN_CLIENT"
        state = self.random.choice((*[ClientState.ACTIVE] * 6, ClientState.SUSPENDED, ClientState.CLOSED))
        terms = ClientTerms(state=state, overdraft_limit=self.random.choice((0, 0, 50, 500)))
        assert self.buckets.set_terms(client_id, terms).value == "SET"
        self.model.buckets[client_id].client = terms
        return "set_terms SET"

    def pass_time(self, client_id: str) -> str:
        """Let a grant's time be over; the bucket has not been swept then."""
        client, shard = self.client, shard_of(client_id, SHARDS)
        key = f"{{billing:{shard}}}:bucket:{client_id}"
        text = (client.get(key) or b"").decode()
        found = re.findall(rf" (\d+):[\d:]+@\d+,({FUTURE_MS}|{FUTURE_MS + 1}),0", text)
        if not found:
            return "pass_time none"
        grant, _ = self.random.choice(found)
        client.set(key, re.sub(rf"( {grant}:[\d:]+@\d+),\d+,", r"\1,1,", text))
        client.zadd(f"{{billing:{shard}}}:expiries", {f"{grant} {client_id}": 1})
        bucket = self.model.buckets[client_id]
        bucket.end(int(grant), bucket.expired)
        return "pass_time"

    def lapse(self, client_id: str) -> str:
        """Sweep the client's shard: what is named is final."""
        lapsed = self.buckets.lapse(shard_of(client_id, SHARDS), 100)
        for one in lapsed:
            bucket = self.model.buckets[one.client_id]
            assert bucket.held[one.grant_id] == bucket.available[one.grant_id] == 0
            adjusted = sum(shares.get(one.grant_id, 0) for shares in bucket.adjustments.values())
            final = (bucket.expired[one.grant_id], bucket.voided[one.grant_id] - adjusted)
            assert (one.expired, one.voided) == final
        self.buckets.forget_lapsed(lapsed)
        return "lapse final" if lapsed else "lapse"


@pytest.mark.parametrize("seed", range(5))
def test_l2_bucket_and_model_agree_after_each_of_2000_random_operations_with_terms(
    buckets: Buckets, server: Server, seed: int
) -> None:
    print(f"seed {seed}")  # noqa: T201 - pytest shows it with a failure
    walk = TermsWalk(buckets, server, seed)
    for _ in range(STEPS):
        walk.step()
    held = {hold.run_id: dict(hold.grants) for client in CLIENTS for hold in buckets.held(client)}
    assert held == {run: hold.shares for run, hold in walk.model.holds.items()}
    seen = set(walk.done)
    assert {"reserve HELD", "reserve TAKEN_OVER", "reserve INSUFFICIENT", "reserve SUSPENDED"} <= seen
    assert {"reserve CLOSED", "settle SETTLED debt", "void VOIDED"} <= seen
    assert {"adjust ADJUSTED", "adjust ADJUSTED debt", "adjust ALREADY", "pass_time", "lapse final"} <= seen
