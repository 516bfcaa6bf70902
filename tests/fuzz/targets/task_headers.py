"""L3: headers from anywhere lead to one run id, whose event the log takes, or to a refusal before anything is done."""

from __future__ import annotations

import inspect
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from celery.app.task import Context

from billing.core.identifiers import check_client_id
from billing.events.task_message import TaskMessage
from billing.events.usage_event import EventHead, encode_head
from billing.fulfillment.decoder import TIME_MAX, decode
from billing.fulfillment.delivery import Poison
from billing.parking import message
from billing.task.definition import Definition
from billing.task.headers import AT, CLIENT, NONCE, QUANTITY, RESERVE, identify, mint
from billing.task.overrides import as_called, carried
from tests.fuzz.laws import as_json, hold, refusing
from tests.fuzz.target import Target

_NOW: Final = datetime(2026, 11, 22, tzinfo=UTC)
_NOW_MS: Final = 1_795_305_600_000
_DEFINITION: Final = Definition(
    task="shop.capture",
    sku="page",
    client="client_id",
    quantity=1,
    reserve=None,
    signature=inspect.signature(lambda client_id: None),
)
_SETTLED: Final = (
    ',"settlement_id":"5e77","occurred_at":%d,"epoch":1,"late":false,'
    '"lines":[{"sku":"page","quantity":1,"credits":0,"grants":[]}]}'
)


def check(data: bytes) -> None:
    """Read the headers of a delivery as gate, event and parking do."""
    found = as_json(data)
    if not isinstance(found, dict):
        return
    given = found.get("headers")
    headers: dict[str, Any] = given if isinstance(given, dict) else {}
    _check_run(found, headers)
    _check_call(headers)
    _check_parked(headers, found)
    with refusing():
        mint(dict(headers), Context(headers=headers), _NOW_MS)


def _check_run(found: Mapping[str, Any], headers: dict[str, Any]) -> None:
    names = {"id", "root_id", "retries", "replaced_task_nesting", "is_eager"}
    request = Context({name: value for name, value in found.items() if name in names}, headers=headers)
    with refusing():
        client_id = check_client_id(headers.get(CLIENT, "acme"), field=CLIENT)
        identity = identify(request, client_id, "shop.capture")
        hold(that=identify(request, client_id, "shop.capture") == identity, but=identity)
        head = EventHead(
            run_id=identity.run_id,
            client_id=client_id,
            correlation_id=request.id or "",
            root_id=request.root_id or request.id or "",
            task="shop.capture",
            attempt=(request.retries or 0) + 1,
            submitted_at=identity.submitted_at,
            price_version=1,
        )
        at = identity.submitted_at or _NOW_MS
        # The gate refuses a run id from more than a day ahead.
        if at <= TIME_MAX:
            event = encode_head(head) + (_SETTLED % at).encode()
            hold(that=not isinstance(decode(event), Poison), but=decode(event))


def _check_call(headers: dict[str, Any]) -> None:
    with refusing():
        called = as_called(_DEFINITION, headers)
        hold(that=headers.get(QUANTITY) in (None, called.quantity), but=called)
    with refusing():
        hold(that="headers" in carried("shop.capture", {**headers, CLIENT: "acme"}), but=headers)


def _check_parked(headers: dict[str, Any], found: Mapping[str, Any]) -> None:
    kept = message.kept_headers(headers)
    text = message.to_text(kept)
    hold(that="\0" not in text and text.isascii(), but=text)
    properties = found.get("properties")
    sent = TaskMessage(
        body=b"",
        content_type="application/json",
        content_encoding="utf-8",
        headers=kept,
        properties=message.kept_properties(properties if isinstance(properties, dict) else {}),
        exchange="",
        routing_key="celery",
    )
    handed = message.handed_over(sent, 1, _NOW)
    hold(that=message.parked_times(handed.headers) == 1, but=handed.headers)
    expiration = handed.properties.get("expiration")
    hold(that=expiration is None or int(expiration) >= 0, but=expiration)
    message.parked_times(headers)


def seeds() -> Iterator[bytes]:
    """Yield the headers of ordinary, retried, replaced, parked and overridden calls."""
    plain = {AT: _NOW_MS, NONCE: "5e77"}
    for headers in (
        plain,
        {AT: _NOW_MS},
        {},
        {**plain, CLIENT: "acme", QUANTITY: 3, RESERVE: {"page": 5, "kib": 1}},
        {**plain, "billing_parked": 2, "expires": "2026-11-23T00:00:00+00:00", "eta": None, "x-death": [{"count": 1}]},
        {**plain, "billing_wrong": "quantity: -1: must be from 0", "billing_quantty": 1},
    ):
        more = {"id": "0192-task", "root_id": "0192-root", "retries": 2, "replaced_task_nesting": 1}
        properties = {"priority": 3, "delivery_mode": 2, "reply_to": "me"}
        yield json.dumps({"headers": headers, **more, "properties": properties}).encode()


TARGET = Target(check=check, seeds=seeds, words=tuple(f'"{name}"'.encode() for name in (AT, NONCE, CLIENT, RESERVE)))
