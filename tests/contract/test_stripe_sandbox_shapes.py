"""The stand-in takes exactly the parameters and returns exactly the keys that the SDK's generated types describe.

The SDK's types are generated from Stripe's OpenAPI description: an SDK that changes this surface fails here first.
"""

from __future__ import annotations

import json
from typing import Any

import pytest
import stripe
from stripe.billing import Meter, MeterEvent, MeterEventSummary
from stripe.params.billing import _meter_create_params as meter_create
from stripe.params.billing._meter_deactivate_params import MeterDeactivateParams
from stripe.params.billing._meter_event_create_params import MeterEventCreateParams
from stripe.params.billing._meter_event_summary_list_params import MeterEventSummaryListParams
from stripe.params.billing._meter_list_params import MeterListParams
from stripe.params.billing._meter_reactivate_params import MeterReactivateParams
from stripe.params.billing._meter_retrieve_params import MeterRetrieveParams

from billing.sinks.stripe.sandbox import calls
from billing.sinks.stripe.sandbox.handlers import API_VERSION
from billing.sinks.stripe.sandbox.params import Spec
from billing.sinks.stripe.sandbox.resources import (
    adjustments,
    customers,
    event_summaries,
    meter_events,
    meters,
    v2_meter_events,
)
from tests.contract.sdk_types import accepted, object_mismatches, required

MINUTE = 60
CALLS = {
    meters.create: meter_create.MeterCreateParams,
    meters.list_all: MeterListParams,
    meters.retrieve: MeterRetrieveParams,
    meters.deactivate: MeterDeactivateParams,
    meters.reactivate: MeterReactivateParams,
    event_summaries.list_all: MeterEventSummaryListParams,
    meter_events.create: MeterEventCreateParams,
}
NESTED = {
    "customer_mapping": meter_create.MeterCreateParamsCustomerMapping,
    "default_aggregation": meter_create.MeterCreateParamsDefaultAggregation,
    "value_settings": meter_create.MeterCreateParamsValueSettings,
}


def names(spec: Spec, *, only_required: bool = False) -> set[str]:
    """Return the names of a specification."""
    return {name for name, param in spec.items() if param.required or not only_required}


def body_of(answer: Any) -> Any:
    """Return the JSON that came over the socket, before the SDK has made objects of it."""
    return json.loads(answer.last_response.body)


@pytest.mark.parametrize("call", list(CALLS), ids=lambda call: f"{call.__module__.rsplit('.', 1)[-1]}.{call.__name__}")
def test_a_call_takes_exactly_the_parameters_of_the_sdk(call: Any) -> None:
    """No more, no less, and the same ones must be given."""
    spec = next(route.takes for route in calls.ROUTES if route.run is call)
    assert names(spec) == accepted(CALLS[call])
    assert names(spec, only_required=True) == required(CALLS[call])


@pytest.mark.parametrize("name", list(NESTED))
def test_a_nested_object_takes_exactly_the_parameters_of_the_sdk(name: str) -> None:
    """The same, one level below."""
    spec = meters.CREATE[name].fields
    assert names(spec) == accepted(NESTED[name])
    assert names(spec, only_required=True) == required(NESTED[name])


def test_every_call_on_meters_and_events_is_compared_with_the_sdk() -> None:
    """A new call cannot be forgotten above, or in the shapes of billing."""
    called = {route.run for route in calls.ROUTES if "/billing/" in route.template}
    assert called == {*CALLS, adjustments.create, adjustments.create_v2, v2_meter_events.create}


def test_a_customer_takes_and_has_only_what_the_sdk_s_customer_has(stripe_client: stripe.StripeClient) -> None:
    """A subset, since Stripe's customer has thirty fields that metering has no use for."""
    from stripe.params._customer_create_params import CustomerCreateParams  # noqa: PLC0415 - a module of 100 kB

    assert names(customers.CREATE) <= accepted(CustomerCreateParams)

    made = stripe_client.v1.customers.create({"name": "acme", "metadata": {"client": "acme"}})

    assert body_of(made).keys() <= stripe.Customer.__annotations__.keys()
    assert (made.object, made.name, made.email, made.livemode) == ("customer", "acme", None, False)
    assert made.metadata is not None
    assert made.metadata.to_dict() == {"client": "acme"}
    assert body_of(stripe_client.v1.customers.retrieve(made.id)) == body_of(made)


def test_objects_have_exactly_the_keys_and_types_of_the_sdk_s_classes(stripe_client: stripe.StripeClient) -> None:
    """Meter (made, read, deactivated, active again), meter event, summary."""
    billing = stripe_client.v1.billing
    customer = stripe_client.v1.customers.create({"name": "acme"})
    meter = billing.meters.create(
        {"display_name": "Credits", "event_name": "credits", "default_aggregation": {"formula": "sum"}}
    )
    event = billing.meter_events.create(
        {"event_name": "credits", "payload": {"value": "5", "stripe_customer_id": customer.id}}
    )
    start = event.timestamp // MINUTE * MINUTE
    summaries = billing.meters.event_summaries.list(
        meter.id, {"customer": customer.id, "start_time": start, "end_time": start + MINUTE}
    )
    read = [
        meter,
        billing.meters.retrieve(meter.id),
        billing.meters.deactivate(meter.id),
        billing.meters.reactivate(meter.id),
    ]

    for one in read:
        assert object_mismatches(body_of(one), Meter, "meter") == []
    assert [one.status for one in read] == ["active", "active", "inactive", "active"]
    assert object_mismatches(body_of(event), MeterEvent, "event") == []
    (summary,) = body_of(summaries)["data"]
    assert object_mismatches(summary, MeterEventSummary, "summary") == []
    assert summary["aggregated_value"] == 5.0
    assert "customer" not in summary


def test_a_list_has_stripe_s_envelope(stripe_client: stripe.StripeClient) -> None:
    """`object`, `data`, `has_more`, `url`, and the SDK pages through it by itself."""
    for number in range(12):
        stripe_client.v1.billing.meters.create(
            {"display_name": "m", "event_name": f"m{number}", "default_aggregation": {"formula": "sum"}}
        )
    first = stripe_client.v1.billing.meters.list({"limit": 5})
    body = body_of(first)
    assert body.keys() == {"object", "data", "has_more", "url"}
    assert (body["object"], body["has_more"], body["url"], len(body["data"])) == ("list", True, "/v1/billing/meters", 5)
    expected = [f"m{number}" for number in reversed(range(12))]
    assert [meter.event_name for meter in first.auto_paging_iter()] == expected
    assert len(stripe_client.v1.billing.meters.list().data) == 10  # Stripe's default

    third = stripe_client.v1.billing.meters.list({"limit": 5, "starting_after": first.data[-1].id})
    back = stripe_client.v1.billing.meters.list({"limit": 5, "ending_before": third.data[0].id})
    assert [meter.event_name for meter in back.data] == expected[:5]
    assert back.has_more is False


def test_a_customised_meter_keeps_its_settings(stripe_client: stripe.StripeClient) -> None:
    """Every setting that can be given comes back."""
    settings: dict[str, Any] = {
        "display_name": "Bytes",
        "event_name": "bytes",
        "default_aggregation": {"formula": "last"},
        "event_time_window": "hour",
        "customer_mapping": {"event_payload_key": "who", "type": "by_id"},
        "value_settings": {"event_payload_key": "bytes_used"},
    }
    made = stripe_client.v1.billing.meters.create(settings)  # type: ignore[arg-type]
    assert {name: value for name, value in body_of(made).items() if name in settings} == settings


def test_the_version_is_that_of_the_locked_sdk(stripe_client: stripe.StripeClient) -> None:
    """The stand-in speaks the version that its rules were taken from, and names the caller's in its answer."""
    made = stripe_client.v1.customers.create({})
    assert made.last_response is not None
    assert made.last_response.headers["Stripe-Version"] == API_VERSION == stripe.api_version
    assert (made.last_response.request_id or "").startswith("req_")
