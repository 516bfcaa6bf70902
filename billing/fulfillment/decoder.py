"""From the bytes of a message to a usage event, a marker, or poison with a reason. Pure, and it never raises.

Everything that the usage log relies on is checked here, once: version, ids, names, bounds, and that the shares of a
line add up to what was charged. What is refused keeps its bytes and its reason (dead letter), so that an event of
real work is never lost, and never delays another client's (L10).
"""

from __future__ import annotations

import functools
import uuid
from collections.abc import Sequence
from typing import Final

import msgspec

from billing.core.credits import CREDITS_MAX
from billing.core.errors import InvalidValue
from billing.core.identifiers import check_client_id, check_sku
from billing.core.ids import LEGACY_MILLISECONDS, milliseconds_of
from billing.core.limits import INTEGER_MAX, TEXT_LENGTH_MAX, TIME_MIN
from billing.events import marker, usage_event
from billing.events.direct import DIRECT_EPOCH
from billing.events.marker import MarkerMessage
from billing.events.usage_event import DRY_RUN, PaidLine, UsageEvent
from billing.fulfillment.delivery import Marker, Poison

#: The longest message that is looked at; a run of `LINES_MAX` lines stays far below it (L9).
BYTES_MAX: Final = 1_048_576
LINES_MAX: Final = 256
REASON_LENGTH_MAX: Final = 500
#: What a clock may show, from `TIME_MIN` up to the year 2100, in milliseconds since the Unix epoch.
TIME_MAX: Final = 4_102_444_800_000
_DAY: Final = 86_400_000
_RUN_ID_VERSION: Final = 7
_VARIANT_BITS: Final = 0b10

_event: Final = msgspec.json.Decoder(UsageEvent)
_marker: Final = msgspec.json.Decoder(MarkerMessage)

#: The same few clients and SKUs come again and again; the rules are pure.
_check_client_id: Final = functools.lru_cache(maxsize=4_096)(check_client_id)
_check_sku: Final = functools.lru_cache(maxsize=1_024)(check_sku)

#: What msgspec raises for arbitrary bytes: bad JSON or types; text that is not UTF-8; nesting without end.
_UNREADABLE: Final = (msgspec.MsgspecError, ValueError, RecursionError)


def decode(body: bytes) -> UsageEvent | Marker | Poison:
    """Return what a message is. Whatever it is, nothing is raised."""
    if len(body) > BYTES_MAX:
        return _poison(f"body: {len(body)} bytes: must be at most {BYTES_MAX}")
    try:
        event = _event.decode(body)
    except _UNREADABLE as error:
        return _decode_marker(body) or _poison(f"body: {error}")
    try:
        _check(event)
    except InvalidValue as error:
        return _poison_of(error)
    return event


def _decode_marker(body: bytes) -> Marker | Poison | None:
    """Return the marker in a body, or None if it is not one at all."""
    try:
        found = _marker.decode(body)
    except _UNREADABLE:
        return None
    try:
        _whole("version", found.version, marker.VERSION, marker.VERSION)
        _whole("shard", found.shard, 0, INTEGER_MAX)
    except InvalidValue as error:
        return _poison_of(error)
    return Marker(token=found.marker, shard=found.shard)


def _check(event: UsageEvent) -> None:
    """Raise `InvalidValue` for a broken rule. Written out, since the consumer does this for every event."""
    if event.version != usage_event.VERSION:
        raise InvalidValue("version", event.version, f"must be {usage_event.VERSION}")
    _check_client_id(event.client_id)
    occurred_at, submitted_at = event.occurred_at, event.submitted_at
    if not TIME_MIN <= occurred_at <= TIME_MAX:
        _whole("occurred_at", occurred_at, TIME_MIN, TIME_MAX)
    if submitted_at is not None and not TIME_MIN <= submitted_at <= TIME_MAX:
        _whole("submitted_at", submitted_at, TIME_MIN, TIME_MAX)
    _check_run_id(event.run_id, occurred_at)
    if not 1 <= event.attempt <= INTEGER_MAX:
        _whole("attempt", event.attempt, 1, INTEGER_MAX)
    if not 0 <= event.price_version <= INTEGER_MAX:
        _whole("price_version", event.price_version, 0, INTEGER_MAX)
    if not 0 <= event.epoch <= INTEGER_MAX:
        _whole("epoch", event.epoch, 0, INTEGER_MAX)
    _check_texts(event)
    _check_lines(event.lines)
    if event.mode is not None:
        _check_mode(event)


def _check_run_id(run_id: uuid.UUID, occurred_at: int) -> None:
    bits = run_id.int
    if bits >> 76 & 0xF != _RUN_ID_VERSION or bits >> 62 & 0b11 != _VARIANT_BITS:
        raise InvalidValue("run_id", str(run_id), "must be a UUID of version 7")
    at = milliseconds_of(run_id)
    # Partitions of the usage history are ranges of the id: one from the far future would have no place there.
    if at > occurred_at + _DAY and at != LEGACY_MILLISECONDS:
        raise InvalidValue("run_id", str(run_id), "must not be more than a day ahead of occurred_at")


def _check_texts(event: UsageEvent) -> None:
    texts = (event.settlement_id, event.correlation_id, event.root_id, event.task)
    # PostgreSQL's text holds every character but NUL.
    if len("".join(texts)) <= TEXT_LENGTH_MAX and "\x00" not in "".join(texts) and event.settlement_id:
        return
    for name, value in zip(("settlement_id", "correlation_id", "root_id", "task"), texts, strict=True):
        minimum = 1 if name == "settlement_id" else 0
        if not minimum <= len(value) <= TEXT_LENGTH_MAX or "\x00" in value:
            raise InvalidValue(name, value[:80], f"must be {minimum} to {TEXT_LENGTH_MAX} characters without NUL")


def _check_lines(lines: Sequence[PaidLine]) -> None:
    if not 1 <= len(lines) <= LINES_MAX:
        raise InvalidValue("lines", len(lines), f"must be 1 to {LINES_MAX} lines")
    total = 0
    for number, line in enumerate(lines):
        _check_line(number, line)
        total += line.credits
    if total > CREDITS_MAX:
        raise InvalidValue("credits", total, f"of all lines together must be at most {CREDITS_MAX}")


def _check_mode(event: UsageEvent) -> None:
    """Refuse a mode that says something else than the charge: no bucket has paid, and a dry run costs nothing."""
    if event.epoch != DIRECT_EPOCH:
        raise InvalidValue("epoch", event.epoch, f"must be {DIRECT_EPOCH} with mode {event.mode}")
    if event.mode == DRY_RUN and any(line.credits for line in event.lines):
        raise InvalidValue("credits", sum(line.credits for line in event.lines), "must be 0 in a dry run")


def _check_line(number: int, line: PaidLine) -> None:
    try:
        _check_sku(line.sku)
    except InvalidValue as error:
        raise InvalidValue(f"lines[{number}].sku", error.value, error.rule) from None
    if not 0 <= line.quantity <= CREDITS_MAX:
        _whole(f"lines[{number}].quantity", line.quantity, 0, CREDITS_MAX)
    if not 0 <= line.credits <= CREDITS_MAX:
        _whole(f"lines[{number}].credits", line.credits, 0, CREDITS_MAX)
    paid = 0
    for share in line.grants:
        if not 0 <= share.grant <= CREDITS_MAX or not 1 <= share.credits <= CREDITS_MAX:
            rule = f"a share names a grant (0 is debt) and 1 to {CREDITS_MAX} credits"
            raise InvalidValue(f"lines[{number}].grants", [share.grant, share.credits], rule)
        paid += share.credits
    if paid != line.credits:
        raise InvalidValue(f"lines[{number}].grants", paid, f"must add up to the line's {line.credits} credits")


def _whole(field: str, value: int, minimum: int, maximum: int) -> None:
    if not minimum <= value <= maximum:
        raise InvalidValue(field, value, f"must be from {minimum} to {maximum}")


def _poison_of(error: InvalidValue) -> Poison:
    try:
        return _poison(str(error))
    except ValueError:  # a number of more digits than Python prints
        return _poison(f"{error.field}: {error.rule}")


def _poison(reason: str) -> Poison:
    """Return poison whose reason is one line that PostgreSQL can store."""
    line = "".join(character if character.isprintable() else " " for character in reason)
    return Poison(reason=line[:REASON_LENGTH_MAX])
