"""L10: whatever answers at Stripe's address is a value, an outcome, or billing's own error in one line without key."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import stripe

from billing.core.settings import Settings
from billing.sinks.sink import Kind, Payload, Reply
from billing.sinks.stripe import error_reports
from billing.sinks.stripe.gateway import Gateway
from billing.sinks.stripe.period_reader import StripePeriods
from billing.sinks.stripe.subscribing import Subscriber
from tests.fuzz.laws import SECRET, check_line, hold, refusing
from tests.fuzz.target import Target

#: L9: calls that one input is answered; after them nobody answers any more.
_CALLS_MAX: Final = 30
_AT: Final = datetime(2026, 6, 1, tzinfo=UTC)
_STATUSES: Final = (200, 200, 200, 201, 204, 301, 400, 401, 402, 403, 404, 409, 429, 500, 503)
_SETTINGS: Final = Settings(stripe_api_key=f"sk_test_{SECRET}")


class Answering(stripe.HTTPClient):
    """Answers every call with the next of some bodies."""

    name = "fuzz"

    def __init__(self, answers: list[bytes]) -> None:
        super().__init__()
        self._answers, self._calls = answers, 0

    def request(
        self, method: str, url: str, headers: Any, post_data: Any = None, *, _usage: Any = None
    ) -> tuple[str, int, Mapping[str, str]]:
        """Return body, status and headers."""
        self._calls += 1
        if self._calls > _CALLS_MAX:
            return "{}", 503, {}
        part = self._answers[(self._calls - 1) % len(self._answers)] or b"\0"
        return part[1:].decode("utf-8", "replace"), _STATUSES[part[0] % len(_STATUSES)], {"request-id": "req_1"}


def check(data: bytes) -> None:
    """Answer with bytes, parted by 0xff: a status, then a body."""
    answers = data.split(b"\xff")
    with Gateway(_SETTINGS, retries=0, http_client=Answering(answers)) as gateway:
        session = gateway.session
        payload = Payload(
            customer_id="cus_1", event_name="credits", identifier="b1-a", units=5, event_at=_AT,
            period_start=_AT, period_end=_AT + timedelta(30),
        )  # fmt: skip
        for kind in Kind:
            _check_reply(gateway.send(dataclasses.replace(payload, kind=kind), idempotency_key="b1-a#1"))
        _check_reply(gateway.withdraw(payload, idempotency_key="b1-a#w"))
        with refusing():
            Subscriber(session, ["credits"]).subscribe("acme", "cus_1")
        with refusing():
            gateway.check("credits")
        with refusing():
            gateway.shown(payload)
        with refusing():
            for report in error_reports.read(session, gateway.meters, _AT):
                fields: tuple[Any, Any] = (report.code, report.count)
                hold(that=isinstance(fields[0], str) and isinstance(fields[1], int), but=report)
    reader = StripePeriods(_SETTINGS, grace=timedelta(hours=1), http_client=Answering(answers))
    reader._session._retries = 0
    with refusing():
        for found in reader.read(["cus_1", "cus_2"]).values():
            for reason in found.reasons.values():
                check_line(reason)
    reader.close()


def _check_reply(reply: Reply) -> None:
    hold(that=_SETTINGS.stripe_api_key not in reply.reason, but=reply)
    if reply.reason:
        check_line(reply.reason)


def seeds() -> Iterator[bytes]:
    """Yield answers as Stripe gives them."""
    meter = {
        "id": "mtr_1", "object": "billing.meter", "event_name": "credits", "status": "active",
        "default_aggregation": {"formula": "sum"}, "event_time_window": None,
        "customer_mapping": {"event_payload_key": "stripe_customer_id", "type": "by_id"},
        "value_settings": {"event_payload_key": "value"},
    }  # fmt: skip
    kind = {"code": "no_meter", "error_count": 7, "sample_errors": [{"request": {"identifier": "b1-a#1"}}]}
    event = {
        "id": "evt_1", "object": "v2.core.event", "type": error_reports.TYPES[0], "created": "2026-06-01T00:00:00.000Z",
        "data": {"reason": {"error_types": [kind]}, "validation_start": "2026-06-01T00:00:00Z",
                 "validation_end": "2026-06-01T00:00:10Z"}, "related_object": {"id": "mtr_1"},
    }  # fmt: skip
    item = {"id": "si_1", "price": {"id": "price_1", "recurring": {"meter": "mtr_1", "usage_type": "metered"}},
            "current_period_start": 1780272000, "current_period_end": 1782864000}  # fmt: skip
    subscription = {
        "id": "sub_1",
        "object": "subscription",
        "status": "active",
        "items": {"data": [item]},
        "start_date": 1,
    }
    refusal = {"error": {"message": "An event already exists with identifier b1-a.", "type": "invalid_request_error"}}
    for status, body in (
        (0, {"object": "list", "data": [meter], "has_more": False, "url": "/v1/billing/meters"}),
        (0, {"data": [event], "next_page_url": None}),
        (0, {"object": "list", "data": [subscription], "has_more": True, "url": "/v1/subscriptions"}),
        (0, {"object": "billing.meter_event", "identifier": "b1-a"}),
        (6, refusal),
        (7, {"error": {"message": f"Invalid API Key: sk_test_{SECRET}"}}),
    ):
        yield bytes([status]) + json.dumps(body).encode()
    yield b"\xff".join(seed for seed in (b'\0{"object":"list","data":[]}', b"\x0b{}", b"\0<html>"))


TARGET = Target(
    check=check, seeds=seeds, words=(b'"data":[', b'"has_more":true', b'"id":', b'"object":"list"', b"\xff\0")
)
