"""Stripe's API: the only file that imports `stripe`. Foreign errors are mapped here; the key is never shown.

Without `billing_stripe_api_key` it talks to the stand-in. A gateway belongs to one thread and one process (its HTTP
session does): make it where it is used, and close it there.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any, Final, Self

import requests
import stripe

from billing.core.errors import BillingError, Fatal, InvalidValue, Rejected, Unreachable
from billing.core.settings import Settings, without_password
from billing.sinks.sink import Answer, ErrorReport, Payload, Reply
from billing.sinks.stripe import answers
from billing.sinks.stripe.keys import KeyKind, key_kind

#: Bounds on connecting and on each wait for bytes, in seconds (L9).
TIMEOUTS_SECONDS: Final = (3.05, 20.0)
#: Further tries of a call that only reads, or that makes something under one idempotency key.
RETRIES: Final = 2
#: The stand-in takes any test key; a fixed one, so that no real key is ever sent to it.
STAND_IN_KEY: Final = "sk_test_billingstandin"
CUSTOMER_KEY: Final = "stripe_customer_id"
VALUE_KEY: Final = "value"
#: Meters that are looked through for ours (L9).
METERS_MAX: Final = 1_000
_MINUTE: Final = 60
_PAGE: Final = 100

# It would write a file into the user's home and send the platform along.
stripe.enable_telemetry = False
_LOGGER: Final = logging.getLogger("stripe")


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Meter:
    """A meter at Stripe."""

    meter_id: str
    event_name: str
    created: bool = False


class Gateway:
    """Calls Stripe, or the stand-in. A context manager; closing it closes its connections."""

    def __init__(self, settings: Settings, *, timeouts_seconds: tuple[float, float] = TIMEOUTS_SECONDS) -> None:
        self.kind = key_kind(settings)
        self.event_name = settings.stripe_meter
        stand_in = self.kind is KeyKind.STAND_IN
        self.where = without_password(settings.stripe_sandbox_url) if stand_in else "api.stripe.com"
        self._session = requests.Session()
        # The stand-in is on loopback: no proxy of the environment, and no password of a ~/.netrc.
        self._session.trust_env = not stand_in
        url = settings.stripe_sandbox_url.rstrip("/")
        everywhere = {"api": url, "meter_events": url, "connect": url, "files": url}
        self._http = stripe.RequestsClient(timeout=timeouts_seconds, session=self._session)
        self._client = stripe.StripeClient(
            settings.stripe_api_key or STAND_IN_KEY,
            base_addresses=everywhere if stand_in else None,  # type: ignore[arg-type]
            max_network_retries=0,
            http_client=self._http,
        )
        self._meters: dict[str, Meter] = {}
        if _LOGGER.level == logging.NOTSET:
            # Three lines for each call are not what a worker's log is for.
            _LOGGER.setLevel(logging.WARNING)

    def send(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Send one meter event in exactly one request, so that each is on record as an attempt. Never raises."""
        try:
            event = self._client.v1.billing.meter_events.create(
                {
                    "event_name": payload.event_name,
                    "identifier": payload.identifier,
                    "timestamp": int(payload.event_at.timestamp()),
                    "payload": {CUSTOMER_KEY: payload.customer_id, VALUE_KEY: str(payload.units)},
                },
                {"idempotency_key": idempotency_key, "max_network_retries": 0},
            )
            taken, response = event.identifier, event.last_response
        except stripe.StripeError as error:
            return answers.of_error(error, payload.identifier)
        except Exception as error:  # noqa: BLE001 - an answer that the SDK cannot read says nothing about the event
            return Reply(answer=Answer.UNKNOWN, reason=f"the answer cannot be read: {type(error).__name__}")
        request_id = response.request_id if response is not None else None
        if taken != payload.identifier:
            reason = "the answer does not name the identifier that was sent"
            return Reply(answer=Answer.UNKNOWN, http_status=200, request_id=request_id, reason=reason)
        return Reply(answer=Answer.TAKEN, http_status=200, request_id=request_id)

    def meter(self, event_name: str) -> Meter | None:
        """Return the active meter of an event name, or None. Raises `Fatal` if it would count wrongly."""
        with self._reaching():
            options: stripe.RequestOptions = {"max_network_retries": RETRIES}
            page = self._client.v1.billing.meters.list({"status": "active", "limit": _PAGE}, options)
            for found in itertools.islice(page.auto_paging_iter(), METERS_MAX):
                if found.event_name == event_name:
                    _check(found)
                    return Meter(meter_id=found.id, event_name=found.event_name)
        return None

    def check(self, event_name: str) -> None:
        """Raise `Fatal` unless the meter is there and counts as increments need it: active, raw, sum, our keys."""
        self._known_meter(event_name)

    def setup(self) -> Meter:
        """Return the meter, made if there was none."""
        found = self.meter(self.event_name)
        if found is not None:
            return found
        with self._reaching():
            made = self._client.v1.billing.meters.create(
                {
                    "display_name": "Credits",
                    "event_name": self.event_name,
                    "default_aggregation": {"formula": "sum"},
                    "customer_mapping": {"event_payload_key": CUSTOMER_KEY, "type": "by_id"},
                    "value_settings": {"event_payload_key": VALUE_KEY},
                },
                {"max_network_retries": RETRIES},
            )
            self._meters[made.event_name] = Meter(meter_id=made.id, event_name=made.event_name, created=True)
        return self._meters[self.event_name]

    def create_customer(self, client_id: str) -> str:
        """Make a customer for a client, for demos and tests; return its id. Refuses a live key."""
        if self.kind is KeyKind.LIVE:
            raise InvalidValue("billing_stripe_api_key", "…_live_…", "must not be live where customers are made up")
        with self._reaching():
            made = self._client.v1.customers.create(
                {"name": client_id, "metadata": {"billing_client": client_id}}, {"max_network_retries": RETRIES}
            )
            return made.id

    def shown(self, payload: Payload) -> int:
        """Return the units that the summary of an event's own minute shows."""
        minute = payload.event_at.replace(second=0, microsecond=0)
        return self.total(payload.customer_id, payload.event_name, minute, minute + timedelta(minutes=1))

    def withdraw(self, payload: Payload, *, idempotency_key: str) -> Reply:
        """Not here yet."""
        raise NotImplementedError(payload.identifier + idempotency_key)

    def error_reports(self, since: datetime) -> Iterator[ErrorReport]:
        """Not here yet."""
        raise NotImplementedError(since)

    def total(self, customer_id: str, event_name: str, start: datetime, end: datetime) -> int:
        """Return the units that Stripe's summaries show for a customer in [start, end), whole minutes in UTC.

        Summaries are eventually consistent, with no bound that Stripe promises. Raises `Unreachable`, `Fatal`, and
        `Rejected` for what concerns this customer alone.
        """
        first, last = int(start.timestamp()), int(end.timestamp())
        if first % _MINUTE or last % _MINUTE or first >= last:
            raise InvalidValue("start, end", (start.isoformat(), end.isoformat()), "must be whole minutes, in order")
        with self._reaching():
            page = self._client.v1.billing.meters.event_summaries.list(
                self._known_meter(event_name).meter_id,
                {"customer": customer_id, "start_time": first, "end_time": last, "limit": _PAGE},
                {"max_network_retries": RETRIES},
            )
            return sum(_whole(summary.aggregated_value) for summary in page.auto_paging_iter())

    def close(self) -> None:
        """Close the connections."""
        self._session.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _known_meter(self, event_name: str) -> Meter:
        known = self._meters.get(event_name) or self.meter(event_name)
        if known is None:
            rule = "is no active meter at Stripe (see: billing stripe setup)"
            raise Fatal(f"billing_stripe_meter: {event_name!r}: {rule}")
        self._meters[event_name] = known
        return known

    @contextmanager
    def _reaching(self) -> Iterator[None]:
        """Map what goes wrong in a call that has no outcome of its own."""
        try:
            yield
        except stripe.StripeError as error:
            reply = answers.of_error(error, identifier=None)
            raise _mapped(reply, self.where) from error
        except BillingError:
            raise
        except Exception as error:
            # Whatever the SDK, or we, look for in an answer and do not find there.
            raise Unreachable(f"Stripe: {self.where!r}: its answer is not Stripe's ({type(error).__name__})") from error


def _mapped(reply: Reply, where: str) -> BillingError:
    line = f"Stripe: {where!r}: {reply.reason}"
    if reply.answer is Answer.FORBIDDEN:
        return Fatal(line)
    return Rejected(line) if reply.answer is Answer.REFUSED else Unreachable(line)


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


def _whole(value: float) -> int:
    """Return a summary's value, which Stripe writes as a float: whole credits stay exact below 2^53."""
    if value != int(value):
        # Of one customer: the others are still to be asked for (L10).
        raise Rejected(f"Stripe: {value!r}: must be whole: somebody else sends events to this meter")
    return int(value)
