"""What changes a client's credits apart from its runs: grants, voids, adjustments, terms, ends of grants, postings.

Each verb is idempotent by the id, or the version, that the ledger gave it, so that whoever finds it open in the ledger
applies it again.
"""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from billing.core.credits import check_amount
from billing.core.limits import USABLE_GRANTS_MAX
from billing.credits.calling import Calling
from billing.credits.posting import Posting, PostOutcome, check_rows
from billing.credits.records import read_shares
from billing.credits.scripts import Command
from billing.credits.terms import ORDINARY, ClientTerms, GrantTerms
from billing.credits.values import GrantOutcome


class VoidOutcome(Enum):
    """What `void` did. `VOIDED` and `ALREADY` mean that the grant pays nothing more."""

    VOIDED = "VOIDED"
    ALREADY = "ALREADY"
    #: The bucket never had the grant.
    UNKNOWN_GRANT = "UNKNOWN_GRANT"
    UNKNOWN_CLIENT = "UNKNOWN_CLIENT"
    RECOVERING = "RECOVERING"
    CORRUPT = "CORRUPT"


class AdjustOutcome(Enum):
    """What `adjust` did. `ADJUSTED` and `ALREADY` mean that the credits are taken, once."""

    ADJUSTED = "ADJUSTED"
    ALREADY = "ALREADY"
    UNKNOWN_CLIENT = "UNKNOWN_CLIENT"
    RECOVERING = "RECOVERING"
    TOO_LARGE = "TOO_LARGE"
    CORRUPT = "CORRUPT"


class TermsOutcome(Enum):
    """What `set_terms` did."""

    SET = "SET"
    UNKNOWN_CLIENT = "UNKNOWN_CLIENT"
    RECOVERING = "RECOVERING"
    CORRUPT = "CORRUPT"


@dataclass(frozen=True, kw_only=True, slots=True)
class AdjustReply:
    """The answer to `adjust`: what each grant gave; grant 0 is debt."""

    outcome: AdjustOutcome
    grants: Mapping[int, int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Lapsed:
    """A grant that has ended and that no hold refers to: these amounts are final. `repaid`: debt, before it ended."""

    shard: int
    client_id: str
    grant_id: int
    expired: int
    voided: int
    repaid: int = 0


class Granting(Calling):
    """The grants of the buckets."""

    def grant(self, client_id: str, grant_id: int, credits_: int, terms: GrantTerms = ORDINARY) -> GrantOutcome:
        """Add an allotment; what the client owes is paid first, unless the grant is for some SKUs alone."""
        check_amount("grant_id", grant_id)
        check_amount("credits", credits_)
        keys = self._keys_of(client_id)
        bucket_keys = (keys.bucket + client_id, keys.grants + client_id, keys.server, keys.expiries)
        arguments = (grant_id, credits_, USABLE_GRANTS_MAX, self._percents, client_id, terms.text())
        return GrantOutcome(self._call("grant", bucket_keys, *arguments))

    def void(self, client_id: str, grant_id: int) -> VoidOutcome:
        """Take back what a grant has available; its holds keep what they were lent."""
        keys = self._keys_of(client_id)
        bucket_keys = (keys.bucket + client_id, keys.grants + client_id, keys.server, keys.expiries)
        return VoidOutcome(self._call("void", bucket_keys, grant_id, client_id))

    def adjust(self, client_id: str, adjustment_id: int, credits_: int) -> AdjustReply:
        """Take credits away, in burn order; what is missing becomes debt (grant 0)."""
        check_amount("credits", credits_)
        keys = self._keys_of(client_id)
        bucket_keys = (keys.bucket + client_id, keys.grants + client_id, keys.server, keys.alerts)
        word, _, shares = self._call("adjust", bucket_keys, adjustment_id, credits_, client_id).partition(" ")
        return AdjustReply(outcome=AdjustOutcome(word), grants=read_shares(shares.encode()))

    def set_terms(self, client_id: str, terms: ClientTerms) -> TermsOutcome:
        """Give a client its state and its overdraft limit."""
        check_amount("overdraft_limit", terms.overdraft_limit, minimum=0)
        keys = self._keys_of(client_id)
        bucket_keys = (keys.bucket + client_id, keys.server, keys.alerts)
        return TermsOutcome(self._call("set_terms", bucket_keys, terms.state.value, terms.overdraft_limit, client_id))

    def post(self, client_id: str, epoch: int, rows: Sequence[Posting]) -> PostOutcome:
        """Bring a bucket of this epoch to what the log says beyond its settles; what it has seen is skipped.

        Each row is another grant's.
        """
        check_amount("epoch", epoch)
        totals = check_rows(rows)
        keys = self._keys_of(client_id)
        bucket_keys = (keys.bucket + client_id, keys.grants + client_id, keys.server, keys.alerts, keys.expiries)
        return PostOutcome(self._call("post", bucket_keys, client_id, epoch, *totals))

    def endings_due(self, shards: Sequence[int] | None = None) -> list[int]:
        """Return which of these shards (None: of all) have grants to look at, in one round trip."""
        asked = range(self.shards) if shards is None else shards
        if not asked:
            return []
        commands: list[Command] = [("ZRANGE", self._keys[shard].expiries, 0, 0, "WITHSCORES") for shard in asked]
        time, *firsts = self._scripts.run_all([("TIME",), *commands])
        now_ms = int(time[0]) * 1_000 + int(time[1]) // 1_000
        return [shard for shard, first in zip(asked, firsts, strict=True) if first and _score(first) <= now_ms]

    def lapse(self, shard: int, count: int) -> list[Lapsed]:
        """Sweep a shard: move what ended grants still have to what expired; return those whose amounts are final.

        Each is named again until `forget_lapsed`, which is to follow its entry in the ledger.
        """
        keys = self._keys[shard]
        lapse_keys = (keys.expiries, keys.server, keys.bucket, keys.grants)
        status, *answer = self._scripts.run(self._command("lapse", lapse_keys, count, self._lease_ms))
        if status != b"OK":
            return []
        found = answer[1:]
        lapsed = []
        for member, expired, voided, repaid in zip(found[::4], found[1::4], found[2::4], found[3::4], strict=True):
            grant_id, _, client_id = member.decode().partition(" ")
            lapsed.append(
                Lapsed(
                    shard=shard,
                    client_id=client_id,
                    grant_id=int(grant_id),
                    expired=int(expired),
                    voided=int(voided),
                    repaid=int(repaid),
                )
            )
        return lapsed

    def forget_lapsed(self, grants: Sequence[Lapsed]) -> None:
        """Look at these grants no more, the ledger having these amounts; one that has got more since is named again."""
        entered: dict[int, list[str | int]] = collections.defaultdict(list)
        for one in grants:
            entered[one.shard] += (f"{one.grant_id} {one.client_id}", one.expired, one.voided)
        commands = []
        for shard, amounts in entered.items():
            keys = self._keys[shard]
            lapse_keys = (keys.expiries, keys.server, keys.bucket, keys.grants)
            commands.append(self._command("lapse", lapse_keys, 0, self._lease_ms, *amounts))
        if commands:
            self._scripts.run_all(commands)


def _score(found: list[Any]) -> float:
    """Return the score of the one member that was asked for: RESP2 answers a flat list, RESP3 pairs."""
    first = found[0]
    return float(first[1] if isinstance(first, list | tuple) else found[1])
