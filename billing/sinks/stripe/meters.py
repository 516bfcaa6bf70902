"""Meters at Stripe: which one counts an event name, and whether it counts as increments need it."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any, Final

from billing.core.errors import Fatal
from billing.sinks.stripe.session import PAGE, Session

CUSTOMER_KEY: Final = "stripe_customer_id"
VALUE_KEY: Final = "value"
#: Meters that are looked through (L9).
METERS_MAX: Final = 1_000


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Meter:
    """A meter at Stripe."""

    meter_id: str
    event_name: str
    created: bool = False


class Meters:
    """The meters of an account, as far as they were asked for: a meter's settings never change."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._active: dict[str, Meter] = {}
        self._names: dict[str, str] = {}

    def find(self, event_name: str) -> Meter | None:
        """Return the active meter of an event name, or None. Raises `Fatal` if it would count wrongly."""
        for listed, found in self._list({"status": "active"}):
            if listed.event_name == event_name:
                with self._session.reaching(calls=False):
                    _check(found)
                return listed
        return None

    def known(self, event_name: str) -> Meter:
        """Return the active meter of an event name; it is looked for once. Raises `Fatal`."""
        found = self._active.get(event_name) or self.find(event_name)
        if found is None:
            rule = "is no active meter at Stripe (see: billing stripe setup)"
            raise Fatal(f"billing_stripe_meter: {event_name!r}: {rule}")
        self._active[event_name] = found
        return found

    def event_names(self) -> dict[str, str]:
        """Return the event name of every meter, of those that count no more as well, by its id. Asked for once."""
        if not self._names:
            self._names = {listed.meter_id: listed.event_name for listed, _ in self._list({})}
        return self._names

    def make(self, event_name: str, *, unit: str = "credits") -> Meter:
        """Make a meter. Another one that makes it at the same time gets the same.

        An event name whose meter was taken out of use gets a new one: how many it had is part of the key.
        """
        before = sum(listed.event_name == event_name for listed, _ in self._list({"status": "inactive"}))
        with self._session.reaching():
            made = self._session.client.v1.billing.meters.create(
                {
                    "display_name": unit.capitalize(),
                    "event_name": event_name,
                    "default_aggregation": {"formula": "sum"},
                    "customer_mapping": {"event_payload_key": CUSTOMER_KEY, "type": "by_id"},
                    "value_settings": {"event_payload_key": VALUE_KEY},
                },
                self._session.once("meter", event_name, unit, before),
            )
            self._active[event_name] = Meter(meter_id=made.id, event_name=made.event_name, created=True)
        return self._active[event_name]

    def _list(self, wanted: dict[str, str]) -> list[tuple[Meter, Any]]:
        """Return meters, each with all that Stripe says of it. What has no id or no name is no answer of Stripe's."""
        params: Any = {**wanted, "limit": PAGE}
        with self._session.reaching():
            page = self._session.client.v1.billing.meters.list(params, self._session.reads())
            found = itertools.islice(page.auto_paging_iter(), METERS_MAX)
            return [(Meter(meter_id=one.id, event_name=one.event_name), one) for one in found]


def _check(meter: Any) -> None:
    """Refuse a meter under which increments would be counted once, overwritten, or booked to nobody."""
    rules = (
        ("formula", meter.default_aggregation.formula, "sum"),
        ("event_time_window", meter.event_time_window, None),
        ("customer key", meter.customer_mapping.event_payload_key, CUSTOMER_KEY),
        ("value key", meter.value_settings.event_payload_key, VALUE_KEY),
    )
    for what, found, wanted in rules:
        if found != wanted:
            rule = f"must be a meter with {what} {wanted!r}, has {found!r}: name another in billing_stripe_meter"
            raise Fatal(f"billing_stripe_meter: {meter.event_name!r}: {rule}")
