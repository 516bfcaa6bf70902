"""`billing doctor`: looks at every part that billing stands on, and says for each finding what to do.

It only reads. A part that does not answer is a finding, not an error, so that one dead server hides no other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from billing.core.errors import BillingError, NotMigrated
from billing.observability.doctor.allowances import examine_allowances
from billing.observability.doctor.broker import examine_broker
from billing.observability.doctor.buckets import examine_buckets
from billing.observability.doctor.clocks import examine_clocks
from billing.observability.doctor.corruptions import examine_corruptions
from billing.observability.doctor.finding import Finding, fail
from billing.observability.doctor.postgres import examine_postgres
from billing.observability.doctor.reconciliation import examine_reconciler, examine_reconciliation
from billing.observability.doctor.redis import examine_redis
from billing.observability.doctor.stripe import examine_stripe
from billing.observability.doctor.tasks import examine_tasks
from billing.task.runtime import Runtime


def examine(runtime: Runtime, app: Any = None) -> list[Finding]:
    """Check every part; `app` adds the checks of its tasks."""
    findings: list[Finding] = []
    parts = (
        ("Redis", examine_redis),
        ("PostgreSQL", examine_postgres),
        ("clocks", examine_clocks),
        ("buckets", examine_buckets),
        ("buckets", examine_corruptions),
        ("broker", examine_broker),
        ("Stripe", examine_stripe),
        ("reconciliation", examine_reconciliation),
        ("reconciliation", examine_reconciler),
        ("allowances", examine_allowances),
    )
    for part, check in parts:
        findings += _guarded(part, check, runtime)
    return findings + ([] if app is None else list(examine_tasks(app)))


def _guarded(part: str, check: Callable[[Runtime], Iterator[Finding]], runtime: Runtime) -> list[Finding]:
    found: list[Finding] = []
    try:
        found.extend(check(runtime))
    except NotMigrated as error:
        found.append(fail(part, str(error), "run: billing migrate"))
    except BillingError as error:
        found.append(fail(part, str(error), "start the server, or mend the setting"))
    return found
