"""Reports what clients used to Stripe, so that its units stand beside the log's.

At the stand-in, clients get what they lack: a customer, a price, a subscription. With a real key nothing is ever made:
only what is linked and subscribed already is sent. Bounded: a number of plans and pushes, each bounded itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from billing import admin
from billing.admin import access, bulk
from billing.connections import postgres
from billing.core.errors import BillingError
from billing.core.settings import Settings
from billing.reconciliation.report import Finding
from billing.sinks.stripe.keys import KeyKind, key_kind
from billing.workload.one_call import accepted, one_call_each

#: Calls to the stand-in at once, as many as one push makes.
_THREADS: Final = 4
#: Plans and pushes in a row (L9): what is left then is for beat's.
_PLANS_MAX: Final = 20
_PUSHES_MAX: Final = 200
#: Calls a second at the stand-in, which bounds nobody: a workload of thousands of clients is reported in a minute.
_CALLS_PER_SECOND: Final = 1_000
#: What a unit costs at the stand-in, in hundredths of a euro, and since when a subscription made there bills usage.
_PRICE: Final = "0.1"
_BACKDATED: Final = timedelta(days=1)

_UNITS: Final = """
    -- what Stripe has accepted of some clients' usage
    SELECT client_id, sum(units * credits_per_unit)::bigint FROM stripe_increment
    WHERE state IN ('sent', 'confirmed') AND client_id = ANY(%s) GROUP BY client_id
"""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StripeReport:
    """What was reported. `text` says it on one line; `reached` is False when Stripe or the stand-in took nothing.

    `findings`: whether each client, meter and period took one call, where the stand-in's request log can say so.
    """

    text: str
    reached: bool
    findings: tuple[Finding, ...] = ()


def report_usage(settings: Settings, client_ids: Sequence[str]) -> StripeReport:
    """Link and subscribe clients where that is allowed, plan, and push until nothing is open or nothing moves."""
    kind = key_kind(settings)
    if kind is not KeyKind.STAND_IN:
        return _report(settings, client_ids, kind)
    unbound = dataclasses.replace(settings, stripe_calls_per_second=_CALLS_PER_SECOND)
    try:
        return _report(unbound, client_ids, kind)
    finally:
        access.close(unbound)


def _report(settings: Settings, client_ids: Sequence[str], kind: KeyKind) -> StripeReport:
    try:
        linked = admin.customers(settings, client_ids)
        if kind is KeyKind.STAND_IN:
            linked = _prepare(settings, client_ids, linked)
        else:
            admin.stripe_setup(settings, dry_run=True)
        before = accepted(settings) if kind is KeyKind.STAND_IN else ()
        waiting = _plan(settings)
        sent, stopped = _push(settings)
        findings = (one_call_each(settings, client_ids, before),) if kind is KeyKind.STAND_IN else ()
    except BillingError as error:
        # Whatever Stripe has against the key or the meter, the books are still to be shown.
        return StripeReport(text=f"Stripe ({kind.value}): nothing more is reported: {error}", reached=False)
    unlinked = len(client_ids) - len(linked)
    parts = [f"Stripe ({kind.value}): {sent:,} increments sent for {len(linked):,} clients"]
    parts += [f"{unlinked:,} clients wait for a link (billing client link)"] if unlinked else []
    parts += [f"{count:,} clients wait: {reason}" for reason, count in sorted(waiting.items())]
    parts += [stopped] if stopped else []
    return StripeReport(text="; ".join(parts), reached=True, findings=findings)


def units_of(settings: Settings, client_ids: Sequence[str]) -> dict[str, int]:
    """Return the credits that Stripe has accepted of each client, in units of its meters."""
    with postgres.reaching(settings), postgres.connect(settings) as connection:
        return dict(connection.execute(_UNITS, [list(client_ids)]).fetchall())


def _prepare(settings: Settings, client_ids: Sequence[str], linked: Mapping[str, str]) -> dict[str, str]:
    """Give the stand-in a price, and each client a customer who is subscribed to it; return the customers."""
    (meter,) = admin.stripe_setup(settings, meter=settings.stripe_meter)
    if meter.price_id is None:
        admin.stripe_setup(settings, meter=settings.stripe_meter, price=_PRICE)
    made = _in_threads(settings, client_ids, linked)
    bulk.link_clients(settings, {name: customer for name, customer in made.items() if name not in linked})
    return made


def _in_threads(settings: Settings, client_ids: Sequence[str], linked: Mapping[str, str]) -> dict[str, str]:
    """Make and subscribe customers, in a few threads with a connection of their own each."""
    from billing.sinks.stripe.gateway import Gateway  # noqa: PLC0415
    from billing.sinks.stripe.subscribing import Subscriber  # noqa: PLC0415

    since = (datetime.now(UTC) - _BACKDATED).replace(minute=0, second=0, microsecond=0)

    def make(own: Sequence[str]) -> dict[str, str]:
        found: dict[str, str] = {}
        with Gateway(settings) as gateway:
            subscriber = Subscriber(gateway.session, [settings.stripe_meter])
            for client_id in own:
                found[client_id] = linked.get(client_id) or gateway.create_customer(client_id)
                subscriber.subscribe(client_id, found[client_id], since=since)
        return found

    parts = [client_ids[number::_THREADS] for number in range(_THREADS)]
    made: dict[str, str] = {}
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="customers") as pool:
        for found in pool.map(make, [part for part in parts if part]):
            made |= found
    return made


def _plan(settings: Settings) -> Mapping[str, int]:
    """Plan as long as there is more to plan; return whose usage waits, by reason."""
    waiting: Mapping[str, int] = {}
    for _ in range(_PLANS_MAX):
        planned = admin.sync_plan(settings)
        waiting = planned.waiting
        if planned.complete and not (waiting and planned.periods_read and planned.unread):
            return waiting
    return waiting


def _push(settings: Settings) -> tuple[int, str | None]:
    """Push as long as something is sent; return how many increments, and why it ended early if it did."""
    sent = 0
    for _ in range(_PUSHES_MAX):
        pushed: Any = admin.sync_push(settings)
        sent += pushed.sent
        if pushed.stopped is not None or not pushed.sent:
            return sent, pushed.stopped
    return sent, None
