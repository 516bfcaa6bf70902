"""Reports what clients used to Stripe, so that its units stand beside the log's.

At the stand-in, clients without a customer get one. With a real key no customer is ever made: only what is linked
already is sent. Bounded: a number of pushes, each of which is bounded itself.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Final

from billing import admin
from billing.admin import bulk
from billing.connections import postgres
from billing.core.errors import BillingError
from billing.core.settings import Settings
from billing.sinks.stripe.keys import KeyKind, key_kind

#: Calls to the stand-in at once, as many as one push makes.
_THREADS: Final = 4
#: Pushes in a row (L9): what is left then is for beat's.
_PUSHES_MAX: Final = 200

_UNITS: Final = """
    -- what Stripe has accepted of some clients' usage
    SELECT client_id, sum(units * credits_per_unit)::bigint FROM stripe_increment
    WHERE state IN ('sent', 'confirmed') AND client_id = ANY(%s) GROUP BY client_id
"""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class StripeReport:
    """What was reported. `text` says it on one line; `reached` is False when Stripe or the stand-in took nothing."""

    text: str
    reached: bool


def report_usage(settings: Settings, client_ids: Sequence[str]) -> StripeReport:
    """Link clients where that is allowed, plan, and push until nothing is open or nothing moves any more."""
    kind = key_kind(settings)
    try:
        admin.stripe_setup(settings)
        linked = admin.customers(settings, client_ids)
        if kind is KeyKind.STAND_IN:
            made = _customers(settings, [client_id for client_id in client_ids if client_id not in linked])
            bulk.link_clients(settings, made)
            linked |= made
        admin.sync_plan(settings)
        sent, stopped = _push(settings)
    except BillingError as error:
        # Whatever Stripe has against the key or the meter, the books are still to be shown.
        return StripeReport(text=f"Stripe ({kind.value}): nothing more is reported: {error}", reached=False)
    unlinked = len(client_ids) - len(linked)
    parts = [f"Stripe ({kind.value}): {sent:,} increments sent for {len(linked):,} clients"]
    parts += [f"{unlinked:,} clients wait for a link (billing client link)"] if unlinked else []
    parts += [stopped] if stopped else []
    return StripeReport(text="; ".join(parts), reached=True)


def units_of(settings: Settings, client_ids: Sequence[str]) -> dict[str, int]:
    """Return the credits that Stripe has accepted of each client, in units of its meters."""
    with postgres.reaching(settings), postgres.connect(settings) as connection:
        return dict(connection.execute(_UNITS, [list(client_ids)]).fetchall())


def _customers(settings: Settings, client_ids: Sequence[str]) -> dict[str, str]:
    """Make a customer for each client, in a few threads with a connection of their own each."""
    from billing.sinks.stripe.gateway import Gateway  # noqa: PLC0415

    def make(own: Sequence[str]) -> dict[str, str]:
        with Gateway(settings) as gateway:
            return {client_id: gateway.create_customer(client_id) for client_id in own}

    parts = [client_ids[number::_THREADS] for number in range(_THREADS)]
    made: dict[str, str] = {}
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="customers") as pool:
        for found in pool.map(make, [part for part in parts if part]):
            made |= found
    return made


def _push(settings: Settings) -> tuple[int, str | None]:
    """Push as long as something is sent; return how many increments, and why it ended early if it did."""
    sent = 0
    for _ in range(_PUSHES_MAX):
        pushed: Any = admin.sync_push(settings)
        sent += pushed.sent
        if pushed.stopped is not None or not pushed.sent:
            return sent, pushed.stopped
    return sent, None
