"""L10: whatever bytes a usage queue holds, they are an event, a marker, or poison whose reason can be stored."""

from __future__ import annotations

import json
import uuid
from collections.abc import Iterator

import msgspec

from billing.events.marker import encode_marker
from billing.events.usage_event import PaidLine, UsageEvent
from billing.fulfillment.decoder import REASON_LENGTH_MAX, decode
from billing.fulfillment.delivery import Marker, Poison
from tests.fuzz.laws import check_line, hold
from tests.fuzz.target import Target
from tests.usage_events import paid_line, usage_event

_BIGINT: int = 2**63


def check(data: bytes) -> None:
    """Decode; what was understood is the same when it is encoded and decoded again, and fits the log's columns."""
    found = decode(data)
    if isinstance(found, Poison):
        check_line(found.reason)
        hold(that=len(found.reason) <= REASON_LENGTH_MAX, but=found.reason)
    elif isinstance(found, Marker):
        hold(that=decode(encode_marker(found.token, found.shard)) == found, but=found)
    else:
        hold(that=decode(msgspec.json.encode(found)) == found, but=found)
        _check_stored(found)


def _check_stored(event: UsageEvent) -> None:
    texts = (event.client_id, event.correlation_id, event.root_id, event.task, event.settlement_id)
    for text in (*texts, *(line.sku for line in event.lines)):
        hold(that="\0" not in text and bool(text.encode() or not text), but=text)
    for line in event.lines:
        _check_line(line)


def _check_line(line: PaidLine) -> None:
    hold(that=sum(share.credits for share in line.grants) == line.credits, but=line)
    hold(that=0 <= line.quantity < _BIGINT and 0 <= line.credits < _BIGINT, but=line)


def seeds() -> Iterator[bytes]:
    """Yield events of each kind, and a marker."""
    yield msgspec.json.encode(usage_event())
    yield msgspec.json.encode(usage_event(lines=(paid_line(), paid_line())))
    yield msgspec.json.encode(msgspec.structs.replace(usage_event(epoch=0), mode="meter_only"))
    yield encode_marker(uuid.UUID(int=7), 3)
    whole = json.loads(msgspec.json.encode(usage_event()))
    for field in whole:
        yield json.dumps({name: value for name, value in whole.items() if name != field}).encode()


TARGET = Target(
    check=check,
    seeds=seeds,
    words=(*(f'"{name}":'.encode() for name in UsageEvent.__struct_fields__), b'"grants":[{"grant":1,"credits":1}]'),
)
