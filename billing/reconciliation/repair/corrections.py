"""What would put a bucket right: postings per grant, or a rebuild. Pure: a reading and facts go in.

A posting moves credits between what is available and what is spent (`credits`), or puts available back to what the
grant's other amounts leave (`restored`). What else differs (a hold, a grant's amount, debt that nobody owes, a bucket
that is gone) has no such sum: then the shard is rebuilt from ledger and log.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

from billing.credits.auditing import BucketReading
from billing.credits.posting import Posted
from billing.credits.values import Balance, GrantBalance
from billing.reconciliation.facts import LedgerFacts
from billing.reconciliation.laws import bucket, grants, holds, spent


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class GrantCorrection:
    """What a grant (0: debt) is posted. `found`: what the books said."""

    grant_id: int
    credits: int
    restored: int
    found: Mapping[str, int] = dataclasses.field(compare=False)


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Correction:
    """What puts one client's bucket right. Two are equal if they do the same, whatever the moment.

    `rebuild` is why its shard must be rebuilt; then nothing is posted. `asked`: a rebuild is asked for already.
    `doubt`: the ledger contradicts itself, and corrects no bucket. `unknown`: it cannot be told from this reading.
    """

    client_id: str
    shard: int
    epoch: int
    postings: tuple[GrantCorrection, ...] = ()
    rebuild: str | None = None
    asked: str | None = None
    doubt: str | None = None
    unknown: str | None = None
    at_ms: int = dataclasses.field(default=0, compare=False)

    @property
    def is_nothing(self) -> bool:
        """Whether nothing is to be done."""
        return not self.postings and self.rebuild is self.asked is self.doubt is self.unknown is None

    @property
    def needs_proof(self) -> bool:
        """Whether it is wrong while events are on their way: it says that something was spent, or was not."""
        return any(one.credits for one in self.postings)


def correction(reading: BucketReading, ledger: LedgerFacts) -> Correction:
    """Return what puts right the bucket of a reading, by what PostgreSQL said after it."""
    made = Correction(client_id=reading.client_id, shard=reading.shard, epoch=ledger.epoch, at_ms=reading.at_ms)
    doubt = next((f"grant {found.grant_id}: {found.found}" for found in grants.in_ledger(ledger)), None)
    if ledger.rebuild is not None or reading.recovering:
        return dataclasses.replace(made, asked=ledger.rebuild or "its shard is recovering")
    if doubt is not None:
        return dataclasses.replace(made, doubt=doubt)
    balance, rebuild = reading.balance, next(_rebuilds(reading, ledger), None)
    if balance is None or rebuild is not None:
        return dataclasses.replace(made, rebuild=rebuild or "its bucket is missing")
    if any(spent.cut(ledger, reading.at_ms).unsure.values()):
        return dataclasses.replace(made, unknown="an event was settled in the very millisecond of the reading")
    postings = _postings(balance, ledger, reading.at_ms)
    if postings and reading.lent is None:
        return dataclasses.replace(made, unknown="its shard has too many holds to look at in one step")
    odd = not postings and bool(list(bucket.differences(reading))) and not _is_posted_to(balance, ledger)
    return dataclasses.replace(made, postings=postings, rebuild="its amounts do not add up" if odd else None)


def _rebuilds(reading: BucketReading, ledger: LedgerFacts) -> Iterator[str]:
    """Yield why only a rebuild puts a bucket right, if that is so."""
    balance = reading.balance
    if balance is None:
        yield "its bucket is corrupt" if reading.unreadable else "its bucket is missing"
        return
    if balance.epoch != ledger.epoch:
        yield f"its bucket is of epoch {balance.epoch}, PostgreSQL is at {ledger.epoch}"
    lost = spent.lost_postings(balance, ledger)
    for found in (*lost, *grants.in_bucket(balance, ledger), *holds.differences(reading)):
        yield f"grant {found.grant_id}: {found.found}"
    if set(balance.order) - {grant.grant_id for grant in balance.grants}:
        yield "its bucket has a grant that it was never granted"
    debt, owed = balance.debt + balance.adjusted_debt, balance.owed - balance.room
    repaid = sum(grant.repaid for grant in balance.grants)
    if debt != owed + repaid:
        yield f"there was {debt:,} of debt, {owed:,} are owed and {repaid:,} were repaid"
    for grant in balance.grants:
        if min(grant.available, grant.held, grant.spent, grant.repaid, grant.expired, grant.voided) < 0:
            yield f"grant {grant.grant_id}: an amount is below zero"
        if _residual(grant) and (grant.expired or grant.voided):
            yield f"grant {grant.grant_id}: its amounts do not add up, and it has ended"


def _postings(balance: Balance, ledger: LedgerFacts, at_ms: int) -> tuple[GrantCorrection, ...]:
    of_log, of_bucket = spent.cut(ledger, at_ms).spent, spent.of_bucket(balance)
    made = []
    by_id = {grant.grant_id: grant for grant in balance.grants}
    for grant_id in sorted(of_log.keys() | of_bucket.keys() | by_id.keys() | ledger.posted.keys()):
        waits = _waits(balance, grant_id, ledger)
        in_log, in_bucket = of_log.get(grant_id, 0), of_bucket.get(grant_id, 0)
        credits_ = in_log - waits.credits - in_bucket
        grant = by_id.get(grant_id)
        restored = 0 if grant is None else _residual(grant) - waits.restored
        if credits_ or restored:
            found = {"log": in_log, "waiting": waits.credits, "bucket": in_bucket} | _amounts(grant)
            made.append(GrantCorrection(grant_id=grant_id, credits=credits_, restored=restored, found=found))
    return tuple(made)


def _residual(grant: GrantBalance) -> int:
    used = grant.available + grant.held + grant.spent + grant.repaid + grant.expired + grant.voided
    return grant.granted - used


def _waits(balance: Balance, grant_id: int, ledger: LedgerFacts) -> Posted:
    """Return what is posted to a grant and not in its bucket."""
    total, seen = ledger.posted.get(grant_id, spent.NOTHING), balance.posted.get(grant_id, spent.NOTHING)
    return Posted(version=total.version, credits=total.credits - seen.credits, restored=total.restored - seen.restored)


def _is_posted_to(balance: Balance, ledger: LedgerFacts) -> bool:
    """Whether something is posted already that the bucket has not."""
    waits = [_waits(balance, grant_id, ledger) for grant_id in ledger.posted]
    return any(one.credits or one.restored for one in waits)


def _amounts(grant: GrantBalance | None) -> dict[str, Any]:
    if grant is None:
        return {}
    names = ("granted", "available", "held", "spent", "repaid", "expired", "voided")
    return {name: getattr(grant, name) for name in names}
