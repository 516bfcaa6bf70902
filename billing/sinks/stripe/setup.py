"""What Stripe must have before usage is billed: a meter, a product and a metered price for each event name in use.

Guarantee: what is there is found and kept, run as often as one likes; runs at the same time make one of each. Refuses a
meter that counts otherwise, and another price than the one that is there: at Stripe a price never changes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from billing.catalog.meters import UsageMeter
from billing.core.errors import InvalidValue, Rejected
from billing.sinks.stripe import prices
from billing.sinks.stripe.meters import Meter, Meters
from billing.sinks.stripe.prices import Wanted
from billing.sinks.stripe.session import Session


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class MeterSetup:
    """What Stripe has for a meter; `made` names what this run made, or would make: meter, product, price.

    An id is None where there is none: of a dry run, or of what nobody asked for.
    """

    event_name: str
    meter_id: str | None
    product_id: str | None
    price_id: str | None
    price: str
    made: tuple[str, ...]


def set_up(
    session: Session, meters: Meters, in_use: Sequence[UsageMeter], *, wanted: Wanted | None, dry_run: bool
) -> list[MeterSetup]:
    """Make what is missing, or only say what it would be; `wanted` is the price of meters that have none.

    Raises `Fatal` for a wrong meter, `InvalidValue` for a price that is another one than the present.
    """
    # All is looked at before anything is made.
    found = [_found(session, meters, one, wanted) for one in in_use]
    lacking = [one.event_name for one in found if one.price_id is None]
    if wanted is not None and len(lacking) > 1:
        rule = f"{len(lacking)} meters have no price: name one of them with --meter ({', '.join(lacking)})"
        raise InvalidValue("price", str(wanted), rule)
    if dry_run:
        return [_missing(one, wanted) for one in found]
    return [_made(session, meters, one, has, wanted) for one, has in zip(in_use, found, strict=True)]


def _found(session: Session, meters: Meters, one: UsageMeter, wanted: Wanted | None) -> MeterSetup:
    meter = meters.find(one.event_name)
    price = None if meter is None else prices.find_price(session, one.event_name, meter.meter_id)
    if price is not None and wanted is not None and (differs := prices.differs(price, wanted)):
        rule = f"meter {one.event_name!r} has {price['id']}, which {differs}: a price never changes (docs/stripe.md)"
        raise InvalidValue("price", str(wanted), rule)
    return MeterSetup(
        event_name=one.event_name,
        meter_id=None if meter is None else meter.meter_id,
        product_id=prices.find_product(session, one.event_name) if price is None else str(price["product"]),
        price_id=None if price is None else price["id"],
        price="" if price is None else prices.shown(price),
        made=(),
    )


def _missing(found: MeterSetup, wanted: Wanted | None) -> MeterSetup:
    """Return what would be made."""
    asked = [("meter", found.meter_id)]
    if wanted is not None:
        asked += [("product", found.product_id), ("price", found.price_id)]
    made = tuple(name for name, there in asked if there is None)
    return dataclasses.replace(found, made=made, price=str(wanted) if "price" in made else found.price)


def _made(session: Session, meters: Meters, one: UsageMeter, found: MeterSetup, wanted: Wanted | None) -> MeterSetup:
    missing = _missing(found, wanted)
    meter_id = found.meter_id or _meter(meters, one).meter_id
    product_id, price_id = found.product_id, found.price_id
    if wanted is not None and price_id is None:
        product_id = product_id or prices.make_product(session, one.event_name, one.unit)
        price_id = prices.make_price(session, one.event_name, meter_id, product_id, wanted)
    return dataclasses.replace(missing, meter_id=meter_id, product_id=product_id, price_id=price_id)


def _meter(meters: Meters, one: UsageMeter) -> Meter:
    """Return the meter, made unless somebody else has made it at this moment with another word for its unit."""
    try:
        return meters.make(one.event_name, unit=one.unit)
    except Rejected:
        found = meters.find(one.event_name)
        if found is None:
            raise
        return found
