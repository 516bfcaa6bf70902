"""L5: no hold outlives its lease for long. Within a lease and a sweep it is resolved, unless nobody sweeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from billing.credits.auditing import BucketReading
from billing.reconciliation.report import Discrepancy, Law

#: Leases after its deadline at which a hold counts as forgotten: one of grace after a pause in sweeping, and two more.
LEASES_MAX: Final = 3


def differences(reading: BucketReading, lease_seconds: float) -> Iterator[Discrepancy]:
    """Yield the client whose oldest hold should have been resolved long ago."""
    if not reading.holds:
        return
    late_seconds = (reading.at_ms - reading.oldest_deadline_ms) / 1_000
    if late_seconds > LEASES_MAX * lease_seconds:
        found = (
            f"a hold is {late_seconds:,.0f} s past its deadline, of {reading.holds:,} holds; "
            "a worker with --fulfillment resolves it"
        )
        yield Discrepancy(law=Law.ORPHANS.value, client_id=reading.client_id, found=found)
