"""The calls of the API: which there are, what each takes, what each does to the store.

Guarantee: a call runs inside one transaction; a `Refusal` leaves nothing behind.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from typing import Any, Final

from billing.sinks.stripe.sandbox import customers, errors, events, meters, summaries
from billing.sinks.stripe.sandbox.errors import Refusal
from billing.sinks.stripe.sandbox.pages import page
from billing.sinks.stripe.sandbox.params import EXPAND, Spec
from billing.sinks.stripe.sandbox.records import Customer, Event, Meter, new_id
from billing.sinks.stripe.sandbox.state import State

Params = dict[str, Any]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Route:
    """One call: `path` may hold an object's id, which is the last argument of `run`."""

    method: str
    path: re.Pattern[str]
    takes: Spec
    run: Callable[..., dict[str, Any]]


def create_customer(state: State, params: Params) -> dict[str, Any]:
    """`POST /v1/customers`."""
    made = Customer(id=new_id("cus"), created=state.clock.now(), details=customers.details(params))
    state.store.add_customer(made)
    return customers.shape(made)


def retrieve_customer(state: State, params: Params, customer_id: str) -> dict[str, Any]:  # noqa: ARG001 - a call
    """`GET /v1/customers/{id}`."""
    found = state.store.customer(customer_id)
    if found is None:
        raise errors.no_such("customer", customer_id)
    return customers.shape(found)


def delete_customer(state: State, params: Params, customer_id: str) -> dict[str, Any]:
    """`DELETE /v1/customers/{id}`."""
    retrieve_customer(state, params, customer_id)
    state.store.delete_customer(customer_id)
    return retrieve_customer(state, params, customer_id)


def create_meter(state: State, params: Params) -> dict[str, Any]:
    """`POST /v1/billing/meters`."""
    name = params["event_name"]
    if state.knobs.event_name_taken == "refuse" and state.store.active_meter(name) is not None:
        raise Refusal(400, f'An active meter already exists for event name "{name}"', param="event_name")
    now = state.clock.now()
    made = Meter(id=new_id("mtr_test"), event_name=name, created=now, updated=now, details=meters.details(params))
    state.store.add_meter(made)
    return meters.shape(made)


def retrieve_meter(state: State, params: Params, meter_id: str) -> dict[str, Any]:  # noqa: ARG001 - a call
    """`GET /v1/billing/meters/{id}`."""
    return meters.shape(_meter(state, meter_id))


def list_meters(state: State, params: Params) -> dict[str, Any]:
    """`GET /v1/billing/meters`."""
    status = params.get("status")
    found = [meters.shape(meter) for meter in state.store.meters() if status in {None, meter.status}]
    return page(found, params, url="/v1/billing/meters")


def deactivate_meter(state: State, params: Params, meter_id: str) -> dict[str, Any]:
    """`POST /v1/billing/meters/{id}/deactivate`."""
    _meter(state, meter_id)
    state.store.set_meter_status(meter_id, "inactive", state.clock.now())
    return retrieve_meter(state, params, meter_id)


def reactivate_meter(state: State, params: Params, meter_id: str) -> dict[str, Any]:
    """`POST /v1/billing/meters/{id}/reactivate`."""
    _meter(state, meter_id)
    state.store.set_meter_status(meter_id, "active", state.clock.now())
    return retrieve_meter(state, params, meter_id)


def create_event(state: State, params: Params) -> dict[str, Any]:
    """`POST /v1/billing/meter_events`."""
    store, knobs, now = state.store, state.knobs, state.clock.now()
    identifier = params.get("identifier") or new_id("evt")
    meter = store.active_meter(params["event_name"])

    def refuse_duplicate() -> None:
        since = now - knobs.identifier_window_seconds
        one_meter = meter.id if meter is not None and knobs.identifier_scope == "meter" else None
        if store.identifier_used(identifier, since=since, meter=one_meter):
            raise errors.duplicate_event(identifier, saved=knobs.save_refusals)

    if knobs.duplicate_first:
        refuse_duplicate()
    timestamp = params.get("timestamp", now)
    events.check_timestamp(timestamp, now)
    if meter is None:
        raise errors.no_active_meter(params["event_name"], saved=knobs.save_refusals)
    payload = params["payload"]
    events.check_payload(payload, meter, decimals=knobs.decimals)
    customer_id = payload[meters.customer_key(meter)]
    dropped = _dropped(state, customer_id)
    refuse_duplicate()
    event = Event(
        identifier=identifier,
        event_name=meter.event_name,
        meter=meter.id,
        customer=customer_id,
        value=payload.get(meters.value_key(meter), "1"),
        timestamp=timestamp,
        received_at=now,
        dropped=dropped,
        payload=payload,
    )
    store.add_event(event)
    return events.shape(event)


def list_summaries(state: State, params: Params, meter_id: str) -> dict[str, Any]:
    """`GET /v1/billing/meters/{id}/event_summaries`."""
    meter, knobs, customer = _meter(state, meter_id), state.knobs, params["customer"]
    if state.store.customer(customer) is None:
        raise errors.no_such("customer", customer, param="customer", status=400)
    start, end = params["start_time"], params["end_time"]
    windows = summaries.windows(start, end, params.get("value_grouping_window"))
    received = state.store.counted_events(meter_id, customer, start, end)
    shown = summaries.visible(received, state.clock.now(), knobs.summary_lag_seconds)
    made = []
    for window in windows:
        its = summaries.inside(shown, window, inclusive=knobs.end_time_inclusive)
        if its or knobs.empty_summaries == "zero":
            made.append(summaries.shape(meter, customer, window, summaries.aggregate(meter, its)))
    if knobs.summaries_newest_first:
        made.reverse()
    return page(made, params, url=f"/v1/billing/meters/{meter_id}/event_summaries")


def _meter(state: State, meter_id: str) -> Meter:
    found = state.store.meter(meter_id)
    if found is None:
        raise errors.no_such("billing meter", meter_id)
    return found


def _dropped(state: State, customer_id: str) -> str | None:
    """Return the code of the error that Stripe reports later, None when the event counts."""
    found = state.store.customer(customer_id)
    if found is not None and not found.deleted:
        return None
    knob = state.knobs.unknown_customer if found is None else state.knobs.deleted_customer
    if knob == "refuse":
        refusal = errors.no_such("customer", customer_id, param="payload", status=400)
        refusal.executed = state.knobs.save_refusals
        raise refusal
    return "meter_event_customer_not_found"


def _route(method: str, path: str, takes: Spec, run: Callable[..., dict[str, Any]]) -> Route:
    pattern = re.compile(re.escape(path).replace(r"\{id\}", "([A-Za-z0-9_-]{1,255})"))
    return Route(method=method, path=pattern, takes=takes, run=run)


ROUTES: Final = (
    _route("POST", "/v1/customers", customers.CREATE, create_customer),
    _route("GET", "/v1/customers/{id}", EXPAND, retrieve_customer),
    _route("DELETE", "/v1/customers/{id}", {}, delete_customer),
    _route("POST", "/v1/billing/meters", meters.CREATE, create_meter),
    _route("GET", "/v1/billing/meters", meters.LIST, list_meters),
    _route("GET", "/v1/billing/meters/{id}", EXPAND, retrieve_meter),
    _route("POST", "/v1/billing/meters/{id}/deactivate", EXPAND, deactivate_meter),
    _route("POST", "/v1/billing/meters/{id}/reactivate", EXPAND, reactivate_meter),
    _route("GET", "/v1/billing/meters/{id}/event_summaries", summaries.LIST, list_summaries),
    _route("POST", "/v1/billing/meter_events", events.CREATE, create_event),
)


def find(method: str, path: str) -> tuple[Route, tuple[str, ...]]:
    """Return the call of a method and path, and the ids in the path."""
    for route in ROUTES:
        if route.method == method and (match := route.path.fullmatch(path)):
            return route, match.groups()
    raise errors.unrecognized_url(method, path)
