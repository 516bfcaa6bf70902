"""What notices that PostgreSQL was restored, and adopts what Stripe has, put together for a runtime."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Final

from billing.connections import postgres
from billing.core.errors import BillingError, Conflict, InvalidValue, Rejected, Unreachable
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.keys import key_kind
from billing.sinks.stripe.period_reader import StripePeriods
from billing.sinks.stripe.rates import turn_to_read
from billing.sinks.sync.postgres.log import PostgresLog
from billing.sinks.sync.resolving import check_reason
from billing.sinks.sync.restored.adopting import Adopted, Adopter
from billing.sinks.sync.restored.comparing import Comparing
from billing.sinks.sync.restored.doubt import LAG, Doubt, read_doubt, refuse_doubt, trust
from billing.sinks.sync.restored.places import Looked, PlaceLog
from billing.sinks.sync.restored.told import Told
from billing.task.runtime import Runtime

#: Clients of one page, whose periods are read together.
PAGE: Final = 50


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class AdoptReport:
    """What was adopted: the places in which anything was not known here, and how many there were.

    `skipped`: meters and clients whose sums Stripe refuses to tell, and why; they keep no other from going on (L10).
    `is_trusted`: the report to Stripe goes on from these books.
    """

    places: tuple[Adopted, ...]
    looked_at: int
    clients: int
    items: int
    dry_run: bool
    is_trusted: bool
    skipped: tuple[str, ...] = ()

    @property
    def left(self) -> int:
        """Units that Stripe has and the log has not."""
        return sum(place.left for place in self.places)


def told_of(runtime: Runtime) -> Told:
    """Return what Redis keeps of the calls to these books."""
    return Told(runtime.redis, runtime.settings.redis_url, key_kind(runtime.settings).value)


def check_books(runtime: Runtime) -> None:
    """Raise `Fatal` when PostgreSQL is of an earlier moment than Stripe was told from."""
    refuse_doubt(runtime.engine, told_of(runtime), runtime.clock)


def guard(runtime: Runtime) -> Comparing:
    """Return what one push asks before it tells a customer anything."""
    books = key_kind(runtime.settings).value
    return Comparing(runtime.engine, PostgresLog(runtime.engine), told_of(runtime), runtime.clock, books=books)


def hold_back(runtime: Runtime, client_id: str | None = None) -> dict[tuple[str, str], str]:
    """Return why usage of some customers and meters is not planned: Stripe may have it already."""
    with Gateway(runtime.settings, turn=turn_to_read(runtime, "sums")) as gateway:
        return guard(runtime).hold_back(gateway, runtime.settings.stripe_meter, client_id=client_id)


def find_doubt(runtime: Runtime) -> Doubt | None:
    """Return why nothing is sent, None when it is."""
    with postgres.reaching(runtime.settings):
        return read_doubt(runtime.engine, told_of(runtime), runtime.clock)


def adopt(
    runtime: Runtime,
    client_id: str | None,
    reason: str,
    *,
    dry_run: bool = False,
    lag: timedelta = LAG,
    ours: bool = True,
) -> AdoptReport:
    """Adopt what Stripe has of one client, or of all; after all of them these books are trusted again.

    `ours` false: another system sent what is unknown here. It stays Stripe's, and no usage is taken for it.
    Raises `InvalidValue` for a reason that says nothing or an unlinked client, and `Conflict` while Stripe's sums may
    not show all that it was told (`lag` after the latest call), or another plan is at work.
    """
    said = check_reason(reason)
    if lag < timedelta():
        raise InvalidValue("lag", lag, "must not be below 0")
    with postgres.reaching(runtime.settings):
        doubt = find_doubt(runtime)
        if doubt is not None and not dry_run and runtime.clock.now() < doubt.settled_at(lag):
            rule = "Stripe's sums may not show all that it was told before: adopt after"
            raise Conflict(f"adopt: {rule} {doubt.settled_at(lag):%Y-%m-%d %H:%M} UTC, or name a shorter --lag-hours")
        report, compared = _adopt_all(runtime, client_id, said, dry_run=dry_run, ours=ours)
        told = told_of(runtime)
        if dry_run:
            return report
        if client_id is None:
            trust(runtime.engine, told, runtime.clock, said)
        if client_id is None or doubt is None:
            # Whatever was found: a sum that has units outside of all periods would hold its customer for ever.
            for pair in compared:
                told.note_compared(pair)
    return dataclasses.replace(report, is_trusted=client_id is None or doubt is None)


def _adopt_all(
    runtime: Runtime, client_id: str | None, reason: str, *, dry_run: bool, ours: bool
) -> tuple[AdoptReport, list[tuple[str, str]]]:
    """Adopt; return also the customers and meters of which this was done."""
    settings, clock, log = runtime.settings, runtime.clock, PlaceLog(runtime.engine)
    months, grace = settings.stripe_periods == "calendar", timedelta(hours=settings.stripe_grace_hours)
    turn = turn_to_read(runtime, "sums")
    source = None if months else StripePeriods(settings, grace=grace, turn=turn)
    clients = 0
    try:
        with Gateway(settings, turn=turn) as gateway:
            gateway.check(settings.stripe_meter)  # a key that is refused is nobody's own matter
            said = {"books": key_kind(settings).value, "reason": reason, "meter": settings.stripe_meter}
            course = _Course(gateway, Adopter(log, gateway, clock, **said, dry_run=dry_run, ours=ours))
            for page in _pages(log, client_id):
                began = clock.now()
                read = source.read([customer for _, customer in page]) if source is not None else {}
                for customer, periods in read.items():
                    log.keep_periods(customer, periods, read_at=began)
                for whose, customer in page:
                    clients += 1
                    meters = log.meters(whose, customer, meter=settings.stripe_meter)
                    places = log.places(
                        whose, customer, meter=settings.stripe_meter, months=months, grace=grace, now=clock.now()
                    )
                    course.adopt(
                        whose, [(customer, event_name) for event_name in meters], places, alone=bool(client_id)
                    )
    finally:
        if source is not None:
            source.close()
    if client_id is not None and not clients:
        raise InvalidValue("client", client_id, "is not linked to a customer")
    report = AdoptReport(
        places=tuple(course.found),
        looked_at=course.looked,
        clients=clients,
        items=course.items,
        dry_run=dry_run,
        is_trusted=False,
        skipped=course.skipped,
    )
    return report, course.compared


class _Course:
    """What came of an adoption so far, client by client."""

    def __init__(self, gateway: Gateway, adopter: Adopter) -> None:
        self._gateway, self._adopter = gateway, adopter
        self._meters: dict[str, str] = {}
        self._clients: list[str] = []
        self.found: list[Adopted] = []
        self.compared: list[tuple[str, str]] = []
        self.looked = self.items = 0

    @property
    def skipped(self) -> tuple[str, ...]:
        """A line for each meter and each client whose sums Stripe refuses to tell."""
        meters = (f"meter {event_name}: {why}" for event_name, why in sorted(self._meters.items()) if why)
        return (*meters, *self._clients)

    def adopt(self, client_id: str, pairs: Sequence[tuple[str, str]], places: Sequence[Looked], *, alone: bool) -> None:
        """Adopt one client's places; what Stripe refuses of it is its own matter, unless it was asked for `alone`."""
        try:
            self.items += self._adopter.adopt_items(client_id)
            for place in places:
                if not self._is_refused(place.event_name):
                    self.looked += 1
                    one = self._adopter.adopt(place)
                    self.found += [one] if one.says_something else []
        except Rejected as error:
            if alone or isinstance(error, Conflict):
                raise
            self._clients.append(f"client {client_id}: {error}")
            return
        self.compared += [pair for pair in pairs if not self._meters.get(pair[1])]

    def _is_refused(self, event_name: str) -> bool:
        """Whether a meter tells nothing: one that was taken out of use is still in old increments. Asked for once."""
        if event_name not in self._meters:
            try:
                self._gateway.check(event_name)
            except Unreachable:
                raise
            except BillingError as error:
                self._meters[event_name] = str(error)
            else:
                self._meters[event_name] = ""
        return bool(self._meters[event_name])


def _pages(log: PlaceLog, client_id: str | None) -> Iterator[list[tuple[str, str]]]:
    after = ""
    while page := log.linked(after=after, client_id=client_id, most=PAGE):
        yield page
        after = page[-1][0]
