"""The commands that each function in Redis issues inside itself, with few grants and with as many as there may be.

What a function says goes over no wire, so the server's own counts are read. A hold takes from all of its client's
grants here, which is the most that it can, and crosses no alert.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import redis

from billing.core.shards import shard_of
from billing.credits.buckets import Buckets
from billing.credits.posting import Posting
from billing.credits.rebuilding import plan_bucket
from billing.credits.scripts import VERBS
from billing.credits.terms import ClientTerms, GrantTerms
from tests.contract.making import a_hold, a_run, a_settlement
from tests.contract.passing import Sweeping, end_grant
from tests.contract.servers import FUTURE_MS, SHARDS, buckets_at

GRANTS: Final = (1, 8, 64)
EACH: Final = 10
#: The last grant: what holds leave of it is so much that no alert is crossed.
LAST: Final = 10_000
#: How often each command ran, by its name.
Commands = Mapping[str, int]
#: What asks for the counts, and what a connection begins with.
_OURS: Final = ("config", "info", "client", "hello", "function", "auth", "select", "fcall")


class Counting:
    """One client with so many grants, and the server's counts."""

    def __init__(self, url: str, grants: int) -> None:
        self.buckets: Buckets = buckets_at(url)
        self.server: Any = redis.Redis.from_url(url)
        self.server.flushall()
        for shard in range(SHARDS):
            self.buckets.verify(shard, expected=None)
        self.grants, self.all, self.shard = grants, grants * EACH, shard_of("acme", SHARDS)
        self.found: dict[str, str] = {}

    def close(self) -> None:
        """Close the connection that counts."""
        self.server.close()
        self.buckets._scripts.client.close()

    def count(self, function: str, work: Callable[[], object]) -> None:
        """Note what a function issues, the most frequent command first."""
        self.server.config_resetstat()
        work()
        statistics = self.server.info("commandstats")
        counts = {name.removeprefix("cmdstat_"): int(entry["calls"]) for name, entry in statistics.items()}
        assert counts.get("fcall") == 1, counts
        own = {name: calls for name, calls in counts.items() if not name.startswith(_OURS)}
        ordered = sorted(own.items(), key=lambda each: (-each[1], each[0]))
        self.found[function] = ", ".join(f"{name} {calls}" for name, calls in ordered)

    def life_of_a_hold(self) -> None:
        """Reserve, stage, renew, settle, assert, release, expire."""
        buckets = self.buckets
        hold = a_hold(a_run(task_id="settled"), self.all)
        self.count("reserve", lambda: buckets.reserve(hold))
        self.count("stage", lambda: buckets.stage("acme", hold.run_id, hold.token, b"[]"))
        self.count("renew", lambda: buckets.renew([("acme", hold.run_id, None)]))
        self.count("assert_hold", lambda: buckets.assert_hold(hold))
        self.count("balance", lambda: buckets.balance("acme"))
        self.count("audit", lambda: buckets.audit(["acme"]))
        self.count("release", lambda: buckets.release("acme", hold.run_id, hold.token))
        expired = a_hold(a_run(task_id="expired"), self.all)
        buckets.reserve(expired)
        Sweeping(self.server, buckets, self.shard).until(lambda found: bool(found.held), "the lease is over")
        self.count("overdue", lambda: buckets.overdue(self.shard, 100))
        self.count("expire", lambda: buckets.expire("acme", expired.run_id))
        buckets.reserve(hold)
        settlement = a_settlement(hold.run_id, self.all)
        self.count("settle", lambda: buckets.settle(settlement))
        self.count("mark_logged", lambda: buckets.mark_logged("acme", hold.run_id, settlement.settlement_id))

    def of_the_books(self) -> None:
        """Post, adjust, void, lapse, and what the client's terms are."""
        buckets = self.buckets
        self.count("set_terms", lambda: buckets.set_terms("acme", ClientTerms(overdraft_limit=5)))
        buckets.set_terms("acme", ClientTerms())
        self.count("post", lambda: buckets.post("acme", 1, [Posting(grant_id=1, version=1, credits=-2)]))
        self.count("adjust", lambda: buckets.adjust("acme", 1, 1))
        self.count("void", lambda: buckets.void("acme", 1))
        end_grant(self.server, "acme", 1_000)
        self.count("lapse", lambda: buckets.lapse(self.shard, 100))

    def of_recovery(self) -> None:
        """Rebuild and verify; and what dry runs count."""
        buckets, shard = self.buckets, self.shard
        self.count("count", lambda: buckets.count("first", {"admitted:a": 1}))
        buckets.close(shard)
        _, server = buckets.server_of(shard)
        asserts = buckets.asserts_of(shard)
        plan = plan_bucket(grants=[(1 + number, EACH) for number in range(self.grants)], spent={}, holds=[])
        self.count("rebuild", lambda: buckets.rebuild("acme", 2, plan, server=server, asserts=asserts))
        self.count("verify", lambda: buckets.verify(shard, expected=server))


def measure_on(url: str) -> dict[str, dict[str, str]]:
    """Return for each function its commands by the number of grants."""
    found: dict[str, dict[str, str]] = {}
    for grants in GRANTS:
        counting = Counting(url, grants)
        buckets = counting.buckets
        counting.count("open", lambda buckets=buckets: buckets.open_client("acme"))  # type: ignore[misc]
        for number in range(1, grants):
            buckets.grant("acme", number, EACH)
        counting.count("grant", lambda buckets=buckets, grants=grants: buckets.grant("acme", grants, LAST))  # type: ignore[misc]
        counting.life_of_a_hold()
        buckets.grant("acme", 1_000, EACH, GrantTerms(expires_ms=FUTURE_MS))
        counting.of_the_books()
        counting.of_recovery()
        counting.close()
        assert counting.found.keys() == VERBS.keys(), VERBS.keys() ^ counting.found.keys()
        for function, commands in counting.found.items():
            found.setdefault(f"function.{function}", {})[f"grants_{grants}"] = commands
    return found


def measure(place: Any) -> dict[str, dict[str, str]]:
    """Count on the session's server."""
    return measure_on(place.redis_url)
