"""`billing client link`: who pays for a client at Stripe."""

from __future__ import annotations

import click

from billing import admin
from billing.cli.completing import client_argument
from billing.cli.context import settings
from billing.cli.output import emit_json, json_option
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.sinks.stripe.keys import key_kind


@click.command(epilog="Example: billing client link acme cus_QXg1kqS8pn4Hnc")
@client_argument
@click.argument("customer_id", required=False)
@click.option("--customer", help="The customer, as cus_…; the same as the argument.")
@click.option("--create", is_flag=True, help="Make a customer at Stripe, unless the client has one. Live keys as well.")
@click.option("--subscribe", is_flag=True, help="Subscribe the customer to the prices of the meters in use.")
@click.option(
    "--backdate-hours",
    type=click.IntRange(0, 744),
    default=0,
    help="Let the subscription begin so long ago: what was used since is billed.",
)
@click.option("--replace", is_flag=True, help="Move the link; what the old customer did not get goes along.")
@click.option("--reason", help="Why the link is moved; stays on record.")
@click.option("--unchecked", is_flag=True, help="Do not ask Stripe whether there is such a customer.")
@json_option
def link(  # noqa: PLR0913 - click gives each option
    *,
    client_id: str,
    customer_id: str | None,
    customer: str | None,
    create: bool,
    subscribe: bool,
    backdate_hours: int,
    replace: bool,
    reason: str | None,
    unchecked: bool,
    as_json: bool,
) -> None:
    """Link a client to the Stripe customer who pays for it. A link stays, unless it is replaced for a reason."""
    if customer_id and customer and customer_id != customer:
        raise InvalidValue("customer", customer, f"is another one than {customer_id!r}: name one")
    wanted = customer or customer_id
    if backdate_hours and not subscribe:
        raise InvalidValue("backdate_hours", backdate_hours, "belongs to --subscribe")
    _check(wanted, create=create, subscribe=subscribe, replace=replace, reason=reason)
    found = settings()
    said: list[str] = []
    told: dict[str, object] = {"client_id": client_id}
    if wanted is not None and replace:
        moved = admin.move_client(found, client_id, wanted, reason=reason or "", unchecked=unchecked)
        told |= {"customer_id": wanted, "created": False, "moved_increments": moved}
        said.append(_moved(client_id, wanted, moved))
    elif wanted is not None:
        created = admin.link_client(found, client_id, wanted, unchecked=unchecked)
        told |= {"customer_id": wanted, "created": created}
        said.append(f"client {client_id}: {'linked' if created else 'is linked already'} to {wanted}")
    elif create:
        made, created = admin.create_customer(found, client_id, replace_reason=reason)
        told |= {"customer_id": made, "created": created}
        how = f"linked to {made}, made at Stripe ({_books(found)})" if created else f"is linked already to {made}"
        stays = "" if created or not replace else ", which Stripe has: another one is made only for one that is deleted"
        said.append(f"client {client_id}: {how}{stays}")
    if subscribe:
        done = admin.subscribe_client(found, client_id, backdate_hours=backdate_hours)
        told |= {"customer_id": done.customer_id, "subscription_id": done.subscription_id}
        told |= {"subscribed": done.created, "meters": list(done.meters), "unpriced": list(done.unpriced)}
        how = "subscribed" if done.created else "is subscribed already"
        said.append(f"customer {done.customer_id}: {how} to {', '.join(done.meters)} ({done.subscription_id})")
        if done.unpriced:
            then = "billing stripe setup --meter METER --price AMOUNT, then this again"
            said.append(f"usage waits on meters without a price: {', '.join(done.unpriced)} ({then})")
    if as_json:
        emit_json(told)
    else:
        click.echo("\n".join(said))


def _check(wanted: str | None, *, create: bool, subscribe: bool, replace: bool, reason: str | None) -> None:
    """Refuse options that contradict each other."""
    if create and wanted is not None:
        raise InvalidValue("create", wanted, "is a customer that is there: leave --create out")
    if replace and wanted is None and not create:
        raise InvalidValue("customer", "", "must be the one that the link moves to, as cus_…, or --create makes one")
    if replace and not (reason or "").strip():
        raise InvalidValue("reason", reason or "", "must say why the link is moved, as --reason 'customer was deleted'")
    if reason is not None and not replace:
        raise InvalidValue("reason", reason, "belongs to --replace")
    if wanted is None and not create and not subscribe:
        raise InvalidValue("customer", "", "must be a customer, as cus_…, or --create makes one")


def _books(found: Settings) -> str:
    kind = key_kind(found).value
    return "live: a real customer" if kind == "live" else kind


def _moved(client_id: str, customer_id: str, moved: int | None) -> str:
    if moved is None:
        return f"client {client_id}: is linked already to {customer_id}"
    return f"client {client_id}: moved to {customer_id}; {moved:,} increments go with it at the next plan"
