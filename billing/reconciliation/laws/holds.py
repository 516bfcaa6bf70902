"""L2 between a bucket and its holds: what its grants hold is what the live holds were lent.

Bucket and holds are read in one step. A hold that was deleted leaves credits that nobody will give back; a hold that
was made up would give back what was never taken.
"""

from __future__ import annotations

from collections.abc import Iterator

from billing.core.credits import NO_GRANT
from billing.credits.auditing import BucketReading
from billing.reconciliation.report import Discrepancy, Law


def differences(reading: BucketReading) -> Iterator[Discrepancy]:
    """Yield the grants whose held credits are not those of the holds. The holds must have been looked at."""
    if reading.balance is None or reading.lent is None:
        return
    held = {grant.grant_id: grant.held for grant in reading.balance.grants} | {NO_GRANT: reading.balance.room}
    for grant_id in sorted(held.keys() | reading.lent.keys()):
        in_bucket, lent = held.get(grant_id, 0), reading.lent.get(grant_id, 0)
        if in_bucket != lent:
            found = f"the bucket holds {in_bucket:,}, its {reading.holds:,} live holds were lent {lent:,}"
            yield Discrepancy(
                law=Law.HOLDS.value,
                client_id=reading.client_id,
                grant_id=grant_id,
                found=found,
                differs_by=in_bucket - lent,
            )
