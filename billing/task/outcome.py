"""What became of a run's reservation, in the words that people see (Flower's column, the task event)."""

from __future__ import annotations

from enum import Enum


class Outcome(Enum):
    """How the billing of a delivery stands."""

    #: The credits are held: the run goes on, or waits for a retry.
    HELD = "held"
    #: It succeeded, and its client has paid.
    CHARGED = "charged"
    #: Charged, after its hold was released, expired or lost (L4).
    LATE = "late"
    #: It succeeded, and its charge waits for Redis.
    PENDING = "pending"
    #: It failed, and what was held is the client's again.
    RELEASED = "released"
    #: Nothing was held, and the body did not run.
    REFUSED = "refused"
    #: Nothing is held: the whole task waits in PostgreSQL for a grant.
    PARKED = "parked"
    #: It was outside the ceiling (L1): nothing was held, and nothing charged.
    DRY_RUN = "dry_run"
    #: It was outside the ceiling (L1), while Redis was away: charged by the log, without a bucket.
    METER_ONLY = "meter_only"
