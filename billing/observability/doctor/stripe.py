"""Doctor's look at Stripe: whose money the key moves, whether meters count as they must, whose usage is not sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime, timedelta
from typing import Final

from sqlalchemy import text

from billing.connections import postgres
from billing.core.errors import BillingError, Unreachable
from billing.core.settings import Settings, without_password
from billing.observability.doctor.finding import Finding, fail, ok, warn
from billing.sinks.stripe.keys import KeyKind, key_kind
from billing.sinks.sync.telling.status import SyncStatus, Waiting, read_status
from billing.task.runtime import Runtime

_PART: Final = "Stripe"
#: A day in which an identifier is known, and a day of looking whether it is absent, fit into this and no less.
GRACE_HOURS_WANTED: Final = 72
#: How long after its plan an increment may wait for a push.
PENDING_MAX: Final = timedelta(days=1)
#: Bounds on connecting and on an answer: whoever looks waits for it.
_ANSWER_SECONDS: Final = (3.05, 8.0)
#: The meters that count what the one of the settings does not, the first of them (L9).
_METERS: Final = text("SELECT DISTINCT event_name FROM sku_meter WHERE event_name <> :default ORDER BY 1 LIMIT 20")


def examine_stripe(runtime: Runtime) -> Iterator[Finding]:
    """Check key and meters, then what the tables say about the report."""
    settings = runtime.settings
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        now = runtime.clock.now()
        status = read_status(connection, now, settings, only_open=True)
        meters = [settings.stripe_meter, *connection.execute(_METERS, {"default": settings.stripe_meter}).scalars()]
    yield from _key(settings)
    yield from _books(runtime)
    yield from _meters(settings, meters)
    yield from _report(status)
    yield from _increments(status, now)


def _key(settings: Settings) -> Iterator[Finding]:
    kind = key_kind(settings)
    if kind is KeyKind.LIVE:
        yield warn(_PART, "live key: increments cost your clients money", "use a test key unless this is meant")
    elif kind is KeyKind.TEST:
        yield ok(_PART, "test key: no money moves")
    else:
        yield ok(_PART, f"no key: reports go to the stand-in at {without_password(settings.stripe_sandbox_url)}")
    if kind is not KeyKind.STAND_IN and settings.stripe_grace_hours < GRACE_HOURS_WANTED:
        seen = f"an invoice is final {settings.stripe_grace_hours} h after its period: what is in doubt then is late"
        advice = f"raise the grace period at Stripe to {GRACE_HOURS_WANTED} h, then billing_stripe_grace_hours"
        yield warn(_PART, seen, advice)


def _books(runtime: Runtime) -> Iterator[Finding]:
    from billing.sinks.stripe.restored import find_doubt  # noqa: PLC0415 - with the SDK

    doubt = find_doubt(runtime)
    if doubt is not None:
        advice = (
            f"see docs/operations.md; then, after {doubt.settled_at():%Y-%m-%d %H:%M} UTC: billing sync adopt --all"
        )
        yield fail(_PART, doubt.what, advice)


def _meters(settings: Settings, meters: Sequence[str]) -> Iterator[Finding]:
    # The SDK is slow to import; whoever imports doctor need not wait for it.
    from billing.sinks.stripe.gateway import Gateway  # noqa: PLC0415

    with Gateway(settings, timeouts_seconds=_ANSWER_SECONDS, retries=0) as gateway:
        for event_name in meters:
            try:
                found = gateway.meter(event_name)
            except Unreachable as error:
                # Who has no key may not want Stripe at all.
                if key_kind(settings) is KeyKind.STAND_IN:
                    yield warn(_PART, str(error), "set billing_stripe_api_key, or run: billing stripe sandbox")
                else:
                    yield fail(_PART, str(error), "see https://status.stripe.com, and the way there; increments wait")
                return
            except BillingError as error:
                yield fail(_PART, str(error), "mend the setting, or the meter at Stripe")
                continue
            if found is None:
                yield warn(_PART, f"has no active meter {event_name}", "run: billing stripe setup")
            else:
                yield ok(_PART, f"meter {found.event_name} adds up whole events under our keys")


def _report(status: SyncStatus) -> Iterator[Finding]:
    if status.unlinked.credits:
        yield warn(_PART, f"unlinked: {_named(status.unlinked)}", "run: billing client link CLIENT cus_…")
    if status.unbilled.credits:
        why = "; ".join(status.unbilled.reasons)
        advice = "subscribe these customers to a price of the meter: their usage waits, and is sent then"
        yield warn(_PART, f"without a subscription: {_named(status.unbilled)}: {why}", advice)
    if status.unmatched:
        latest = status.unmatched_reports[0]
        seen = f"{status.unmatched:,} error reports of calls that are not ours: {latest.code} ({latest.event_name})"
        yield warn(_PART, seen, "see who else sends events to this meter: billing sync status")
    if status.last.reported_at is not None:
        yield ok(_PART, f"last error report: {status.last.reported_at:%Y-%m-%d %H:%M} UTC")


def _increments(status: SyncStatus, now: datetime) -> Iterator[Finding]:
    counts = {found.state: found for found in status.states}
    for_person = counts["rejected"].increments + counts["quarantined"].increments
    if for_person:
        advice = "see: billing sync status, then: billing sync resolve INCREMENT --as … --reason …"
        yield warn(_PART, f"{for_person:,} increments wait for a person", advice)
    if status.concerned > for_person:
        yield warn(_PART, f"{status.concerned:,} increments are to be looked at", "see: billing sync status")
    oldest = counts["pending"].oldest
    if oldest is not None and now - oldest > PENDING_MAX:
        seen = f"the oldest pending increment was planned {oldest:%Y-%m-%d %H:%M} UTC"
        yield warn(_PART, seen, "see whether beat and a worker of billing.maintenance run; or: billing sync push")


def _named(waiting: Waiting) -> str:
    more = ", …" if waiting.clients > len(waiting.names) else ""
    return f"{waiting.credits:,} credits of {waiting.clients:,} clients ({', '.join(waiting.names)}{more})"
