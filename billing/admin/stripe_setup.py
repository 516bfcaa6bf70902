"""Stripe's side of the report, from Python: meters, products and prices; and the meters that billing knows."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Final

from billing.admin.access import runtime_for
from billing.catalog import meters as catalog
from billing.catalog.meters import UsageMeter
from billing.connections import postgres
from billing.core.errors import InvalidValue
from billing.core.settings import Settings
from billing.sinks.stripe.keys import KeyKind, key_kind

if TYPE_CHECKING:
    from billing.sinks.stripe.setup import MeterSetup

_CURRENCY_LETTERS: Final = 3
#: Stripe's bound on `unit_amount_decimal`.
_DECIMALS_MAX: Final = 12
INTERVALS: Final = ("day", "week", "month", "year")


def add_meter(
    settings: Settings, event_name: str, *, credits_per_unit: int = 1, unit: str, skus: Sequence[str] = ()
) -> tuple[UsageMeter, bool]:
    """Add a meter, or SKUs to one; return it with whether anything is new. Raises as `catalog.meters.add_meter`."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.begin() as connection:
        return catalog.add_meter(connection, event_name, credits_per_unit=credits_per_unit, unit=unit, skus=skus)


def skus_without_price(settings: Settings, skus: Sequence[str]) -> list[str]:
    """Return those of the SKUs that no price was ever set for."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        return catalog.without_price(connection, skus)


def meters(settings: Settings) -> list[UsageMeter]:
    """Return the meters in use: the one of the settings, and those that were added."""
    runtime = runtime_for(settings)
    with postgres.reaching(settings), runtime.engine.connect() as connection:
        return catalog.list_meters(connection, settings.stripe_meter)


def stripe_setup(
    settings: Settings,
    *,
    price: str | Decimal | None = None,
    currency: str = "eur",
    interval: str = "month",
    meter: str | None = None,
    dry_run: bool = False,
) -> list[MeterSetup]:
    """Make what Stripe lacks for each meter in use (or one), or only say what it would be; return what there is.

    `price` is that of one unit in the currency's smallest unit (0.2 of eur: a fifth of a cent), for a meter without
    one; without it no product and no price is made. Raises `Fatal` for a wrong meter, `InvalidValue` for another price.
    """
    from billing.sinks.stripe import setup  # noqa: PLC0415 - the SDK takes a quarter of a second to import
    from billing.sinks.stripe.meters import Meters  # noqa: PLC0415
    from billing.sinks.stripe.prices import Wanted  # noqa: PLC0415
    from billing.sinks.stripe.session import Session  # noqa: PLC0415

    wanted = None
    if price is not None:
        wanted = Wanted(amount=_amount(price), currency=_currency(currency), interval=_interval(interval))
    in_use = meters(settings)
    if meter is not None:
        in_use = [one for one in in_use if one.event_name == meter]
        if not in_use:
            raise InvalidValue("meter", meter, "is no meter in use (see: billing meter list)")
    session = Session(settings)
    try:
        return setup.set_up(session, Meters(session), in_use, wanted=wanted, dry_run=dry_run)
    finally:
        session.close()


def advance_stand_in(settings: Settings, *, days: int) -> datetime:
    """Move the stand-in's time on; return it. Raises `InvalidValue` when a key is set: Stripe's time is not ours."""
    from billing.sinks.stripe.sandbox.control import SandboxControl  # noqa: PLC0415 - brings in an HTTP client

    if key_kind(settings) is not KeyKind.STAND_IN:
        raise InvalidValue("billing_stripe_api_key", "…", "is set: only the stand-in's time can be moved")
    with SandboxControl(settings.stripe_sandbox_url) as control:
        control.advance(days * 86_400)
        return datetime.fromtimestamp(control.state()["now"], UTC)


def _amount(price: str | Decimal) -> Decimal:
    rule = f"must be an amount of the currency's smallest unit from 0, with at most {_DECIMALS_MAX} decimals, as 0.2"
    try:
        found = Decimal(str(price))
    except InvalidOperation:
        raise InvalidValue("price", str(price), rule) from None
    exponent = found.as_tuple().exponent
    if not isinstance(exponent, int) or found < 0 or -exponent > _DECIMALS_MAX or found >= 10**12:
        raise InvalidValue("price", str(price), rule)
    return found


def _currency(currency: str) -> str:
    found = currency.lower()
    if len(found) != _CURRENCY_LETTERS or not found.isascii() or not found.isalpha():
        raise InvalidValue("currency", currency, "must be the three letters of a currency, as eur")
    return found


def _interval(interval: str) -> str:
    if interval not in INTERVALS:
        raise InvalidValue("interval", interval, f"must be one of: {', '.join(INTERVALS)}")
    return interval
