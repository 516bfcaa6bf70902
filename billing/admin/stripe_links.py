"""Clients and their Stripe customers, from Python: linked, made, subscribed, moved. Each call may be repeated."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from billing.admin.access import runtime_for
from billing.catalog import clients as catalog
from billing.catalog.meters import list_meters
from billing.connections import postgres
from billing.core.errors import InvalidValue, Unreachable
from billing.core.identifiers import check_client_id
from billing.core.settings import Settings
from billing.sinks.stripe import links

if TYPE_CHECKING:
    from billing.sinks.stripe.invoices import InvoiceView


_UNLINKED: Final = "has no Stripe customer (see: billing client link CLIENT --create)"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Subscribed:
    """A client's subscription; `created` says whether this call made it. `meters` are what it bills.

    `unpriced` are meters in use without a price: nobody can be subscribed to them, and their usage waits.
    """

    client_id: str
    customer_id: str
    subscription_id: str
    meters: tuple[str, ...]
    created: bool
    unpriced: tuple[str, ...] = ()


def link_client(settings: Settings, client_id: str, customer_id: str, *, unchecked: bool = False) -> bool:
    """Link a client to the Stripe customer who pays for it; return whether the link is new. Doing so again is harmless.

    Stripe is asked whether there is such a customer, unless `unchecked`. Raises `InvalidValue`, `UnknownClient`, and
    `Conflict` when the client or the customer has another link; `Unreachable` and `Fatal` when Stripe cannot be asked.
    """
    _check(settings, client_id, customer_id, unchecked=unchecked)
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        catalog.get_client(connection, client_id)
        return links.link(connection, client_id, customer_id)


def move_client(
    settings: Settings, client_id: str, customer_id: str, *, reason: str, unchecked: bool = False
) -> int | None:
    """Move a client's link to another customer; return how many increments go with it, None if it is there already.

    What was not taken of the old customer's increments is sent to the new one by the next plan and push. Raises as
    `link_client`, and `InvalidValue` for a client without a link.
    """
    _check(settings, client_id, customer_id, unchecked=unchecked)
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        catalog.get_client(connection, client_id)
        return links.move(connection, client_id, customer_id, reason=reason, now=runtime.clock.now())


def create_customer(settings: Settings, client_id: str, *, replace_reason: str | None = None) -> tuple[str, bool]:
    """Make the Stripe customer of a client that has none, and link it; return it with whether it is new.

    With a live key it is a real one. A reason to replace the customer moves the link of one that Stripe has no more; as
    long as Stripe has it, it stays. Raises as `link_client`.
    """
    from billing.sinks.stripe import customers  # noqa: PLC0415 - the SDK takes a quarter of a second to import
    from billing.sinks.stripe.session import Session  # noqa: PLC0415

    check_client_id(client_id)
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        client = catalog.get_client(connection, client_id)
        has = links.customers_of(connection, [client_id]).get(client_id)
    session = Session(settings)
    try:
        if has is not None and (replace_reason is None or not customers.why_not(session, has)):
            return has, False
        made = customers.make(session, client_id, since=client.created_at, instead_of=has)
    finally:
        session.close()
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        if has is not None:
            links.move(connection, client_id, made, reason=replace_reason or "", now=runtime.clock.now())
            return made, True
        return made, links.link(connection, client_id, made)


def subscribe_client(settings: Settings, client_id: str, *, backdate_hours: int = 0) -> Subscribed:
    """Subscribe a linked client to the price of each meter in use that has one, unless it is subscribed already.

    It begins now, or some hours ago: what was used since then is billed.

    Raises `InvalidValue` for a client without a link, and where no meter has a price.
    """
    from billing.sinks.stripe.session import Session  # noqa: PLC0415 - see above
    from billing.sinks.stripe.subscribing import Subscriber  # noqa: PLC0415

    check_client_id(client_id)
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        catalog.get_client(connection, client_id)
        customer_id = links.customers_of(connection, [client_id]).get(client_id)
        in_use = [one.event_name for one in list_meters(connection, settings.stripe_meter)]
    if customer_id is None:
        raise InvalidValue("client_id", client_id, _UNLINKED)
    session = Session(settings)
    try:
        began = runtime.clock.now() - timedelta(hours=backdate_hours)
        # To the hour, so that the same call a moment later asks for the same.
        since = began.replace(minute=0, second=0, microsecond=0) if backdate_hours else None
        made = Subscriber(session, in_use).subscribe(client_id, customer_id, since=since)
    finally:
        session.close()
    return Subscribed(
        client_id=client_id,
        customer_id=customer_id,
        subscription_id=made.subscription_id,
        meters=made.event_names,
        created=made.created,
        unpriced=made.unpriced,
    )


def customers(settings: Settings, client_ids: Sequence[str]) -> dict[str, str]:
    """Return the Stripe customers of those of some clients that are linked."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        return links.customers_of(connection, client_ids)


def invoices(settings: Settings, client_id: str, *, most: int = 12) -> list[InvoiceView]:
    """Return the newest invoices of a client as Stripe has them. Raises `InvalidValue` for one without a link."""
    from billing.sinks.stripe import invoices as at_stripe  # noqa: PLC0415 - see above
    from billing.sinks.stripe.session import Session  # noqa: PLC0415

    check_client_id(client_id)
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        catalog.get_client(connection, client_id)
        customer_id = links.customers_of(connection, [client_id]).get(client_id)
    if customer_id is None:
        raise InvalidValue("client_id", client_id, _UNLINKED)
    session = Session(settings)
    try:
        return at_stripe.of_customer(session, customer_id, most=most)
    finally:
        session.close()


def _check(settings: Settings, client_id: str, customer_id: str, *, unchecked: bool) -> None:
    """Refuse bad ids, then a customer that Stripe does not have."""
    check_client_id(client_id)
    links.check_customer_id(customer_id)
    if unchecked:
        return
    from billing.sinks.stripe import customers as at_stripe  # noqa: PLC0415 - see above
    from billing.sinks.stripe.session import Session  # noqa: PLC0415

    session = Session(settings)
    try:
        reason = at_stripe.why_not(session, customer_id)
    except Unreachable as error:
        raise Unreachable(f"{error}; to link without asking: --unchecked") from error
    finally:
        session.close()
    if reason:
        raise InvalidValue("customer_id", customer_id, reason)
