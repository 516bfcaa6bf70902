"""Doctor's look at Stripe: whose money the key moves, whether the meter counts as it must, whose usage is not sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from billing.connections import postgres
from billing.core.errors import BillingError, Unreachable
from billing.core.settings import without_password
from billing.observability.finding import Finding, fail, ok, warn
from billing.sinks.stripe.keys import KeyKind, key_kind
from billing.sinks.sync.status import SyncStatus, Waiting, read_status
from billing.task.runtime import Runtime

_PART: Final = "Stripe"


def examine_stripe(runtime: Runtime) -> Iterator[Finding]:
    """Check key and meter, then what the tables say about the report."""
    yield from _meter(runtime)
    with postgres.reaching(runtime.settings), runtime.engine.connect() as connection:
        status = read_status(connection, runtime.clock.now(), runtime.settings)
    yield from _report(status)


def _meter(runtime: Runtime) -> Iterator[Finding]:
    # The SDK is slow to import; whoever imports doctor need not wait for it.
    from billing.sinks.stripe.gateway import Gateway  # noqa: PLC0415

    settings = runtime.settings
    kind = key_kind(settings)
    if kind is KeyKind.LIVE:
        yield warn(_PART, "live key: increments cost your clients money", "use a test key unless this is meant")
    elif kind is KeyKind.TEST:
        yield ok(_PART, "test key: no money moves")
    else:
        yield ok(_PART, f"no key: reports go to the stand-in at {without_password(settings.stripe_sandbox_url)}")
    try:
        with Gateway(settings) as gateway:
            found = gateway.meter(settings.stripe_meter)
    except Unreachable as error:
        # Who has no key may not want Stripe at all.
        verdict = warn if kind is KeyKind.STAND_IN else fail
        yield verdict(_PART, str(error), "set billing_stripe_api_key, or run: billing stripe sandbox")
    except BillingError as error:
        yield fail(_PART, str(error), "mend the setting, or the meter at Stripe")
    else:
        if found is None:
            yield warn(_PART, f"has no active meter {settings.stripe_meter}", "run: billing stripe setup")
        else:
            yield ok(_PART, f"meter {found.event_name} adds up whole events under our keys")


def _report(status: SyncStatus) -> Iterator[Finding]:
    if status.unlinked.credits:
        yield warn(_PART, f"unlinked: {_named(status.unlinked)}", "run: billing client link CLIENT cus_…")
    if status.concerned:
        yield warn(_PART, f"{status.concerned:,} increments are to be looked at", "see: billing sync status")


def _named(waiting: Waiting) -> str:
    more = ", …" if waiting.clients > len(waiting.names) else ""
    return f"{waiting.credits:,} credits of {waiting.clients:,} clients ({', '.join(waiting.names)}{more})"
