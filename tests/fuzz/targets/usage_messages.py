"""L10: whatever headers and body a usage queue's message has, it is one row to write; and none is believed unsigned."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from kombu.message import Message

from billing.core.signing_keys import SigningKey
from billing.events.links import ENTRY_HEADER, SHARD_HEADER
from billing.events.signing import SIGNATURE_HEADER, Verifier, sign
from billing.fulfillment.decoder import REASON_LENGTH_MAX
from billing.fulfillment.delivery import Poison
from billing.fulfillment.receiving import received
from tests.fuzz.laws import as_json, check_line, hold
from tests.fuzz.target import Target
from tests.usage_events import usage_event

_KEY: Final = SigningKey(sender="workers", secret=b"k" * 32)
_VERIFIER: Final = Verifier([_KEY])
_QUEUE: Final = "billing.usage.0"


def check(data: bytes) -> None:
    """Take the body and headers that bytes spell as RabbitMQ, and as a Redis transport, hand them over."""
    found = as_json(data)
    told = found if isinstance(found, dict) else {"body": data.decode("utf-8", "replace")}
    body, headers = told.get("body"), told.get("headers")
    for form in (body, body.encode("utf-8", "surrogatepass") if isinstance(body, str) else data):
        _check_plain(form, headers)
        _check_signed(form, headers)


def _check_plain(body: object, headers: object) -> None:
    plain = received(_QUEUE, _Given(body, headers), None)
    _check_stored(plain.decoded)
    hold(that=plain.shard is None or 0 <= plain.shard < 2**31, but=plain)
    named = plain.entry_id
    hold(that=named is None or all(int(part) < 2**64 for part in named.split("-", 1)), but=plain)


def _check_signed(body: object, headers: object) -> None:
    believed = received(_QUEUE, _Given(body, headers), _VERIFIER)
    _check_stored(believed.decoded)
    if isinstance(believed.decoded, Poison) and believed.decoded.forged:
        hold(that=(believed.shard, believed.entry_id) == (None, None), but=believed)
        return
    where = {"queue": _QUEUE, "shard": believed.shard, "entry_id": believed.entry_id}
    signature = headers.get(SIGNATURE_HEADER) if isinstance(headers, dict) else None
    hold(that=signature == sign(_KEY, believed.body, **where), but=believed)  # type: ignore[arg-type]


def _check_stored(decoded: object) -> None:
    if isinstance(decoded, Poison):
        check_line(decoded.reason)
        hold(that=len(decoded.reason) <= REASON_LENGTH_MAX, but=decoded.reason)


class _Given(Message):
    """A message of kombu's."""

    def __init__(self, body: object, headers: Any) -> None:
        super().__init__(body=body, delivery_tag=1, properties={})  # type: ignore[arg-type]
        self.headers = headers


def seeds() -> Iterator[bytes]:
    """Yield events that are signed, not signed, and signed by another."""
    body = msgspec.json.encode(usage_event())
    entry = {SHARD_HEADER: 3, ENTRY_HEADER: "1795305600000-0"}
    where: dict[str, Any] = {"queue": _QUEUE, "shard": 3, "entry_id": entry[ENTRY_HEADER]}
    signed = {**entry, SIGNATURE_HEADER: sign(_KEY, body, **where)}
    others = {**entry, SIGNATURE_HEADER: sign(SigningKey(sender="relay", secret=b"r" * 32), body, **where)}
    for headers in (signed, entry, others, {}, None, {**signed, ENTRY_HEADER: None}, {**signed, SHARD_HEADER: True}):
        yield json.dumps({"body": body.decode(), "headers": headers}).encode()
    yield json.dumps({"body": {"not": ["text"]}, "headers": ["no", "table"]}).encode()
    yield json.dumps({"body": 5, "headers": {SHARD_HEADER: -1, ENTRY_HEADER: "0-x", SIGNATURE_HEADER: 7}}).encode()


TARGET = Target(
    check=check,
    seeds=seeds,
    words=(b'"headers":', b'"1:workers:', *(f'"{each}":'.encode() for each in (SHARD_HEADER, ENTRY_HEADER))),
)
