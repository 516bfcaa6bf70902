"""What a person types is a value that every later step can use, or one line with field, value and rule."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from billing.admin.spans import bounded
from billing.cli.amount import CREDITS, INSTANT, PRICE, SIGNED_CREDITS
from billing.core.clock import from_milliseconds, to_milliseconds
from billing.core.credits import CREDITS_MAX, check_amount, parse_amount
from billing.core.identifiers import check_client_id, check_sku
from billing.core.ids import LEGACY_MILLISECONDS, milliseconds_of, run_id
from billing.fulfillment.selection import Selection
from billing.schema.months import check_age, following, name_of, parse_month
from billing.workload.rows import read_quantity, read_time
from tests.fuzz.laws import as_json, as_text, hold, refusing
from tests.fuzz.target import Target

_NOW: Final = datetime(2026, 11, 22, tzinfo=UTC)


def check(data: bytes) -> None:
    """Read bytes as each of them."""
    text = as_text(data)
    for read in _READERS:
        with refusing():
            read(text)
    value = as_json(data)
    for look in (check_client_id, check_sku, lambda given: check_amount("amount", given)):
        with refusing():
            look(value)


def _amounts(text: str) -> None:
    for found in (CREDITS.convert(text, None, None), PRICE.convert(text, None, None), parse_amount("credits", text)):
        hold(that=0 <= found <= CREDITS_MAX, but=found)


def _signed(text: str) -> None:
    found = SIGNED_CREDITS.convert(text, None, None)
    hold(that=0 < abs(found) <= CREDITS_MAX, but=found)


def _quantity(text: str) -> None:
    hold(that=read_quantity(text) >= 0, but=text)


def _month(text: str) -> None:
    month = parse_month(text)
    hold(that=parse_month(f"{month:%Y-%m}") == month, but=month)
    hold(that=following(month).day == 1 and len(name_of(month)) == len("usage_history_2026_11"), but=month)
    check_age(month, _NOW)


def _instant(text: str) -> None:
    found = INSTANT.convert(text, None, None)
    hold(that=found.tzinfo is not None, but=found)
    for of in (Selection(start=found), Selection(end=found), Selection(start=_NOW, end=found)):
        with refusing():
            whole = bounded(of, _NOW)
            hold(that=whole.start is not None and whole.end is not None and whole.start < whole.end, but=whole)


def _time(text: str) -> None:
    found = read_time(text)
    hold(that=found.utcoffset() == timedelta(0), but=found)


def _names(text: str) -> None:
    with refusing():
        hold(that=check_client_id(text).isprintable(), but=text)
    with refusing():
        hold(that=check_sku(text).isascii(), but=text)
    with refusing():
        bounded(Selection(correlation_id=text, root_id=text), _NOW)


def _ids(text: str) -> None:
    if text.isascii() and text.isdecimal() and len(text) <= 14:
        at = int(text) % LEGACY_MILLISECONDS
        found = run_id("acme", text, nesting=0, nonce="", at_milliseconds=at)
        hold(that=milliseconds_of(found) == at and found.version == 7, but=found)
        hold(that=to_milliseconds(from_milliseconds(at)) == at, but=at)


_READERS: Final[tuple[Callable[[str], Any], ...]] = (
    _amounts, _signed, _quantity, _month, _instant, _time, _names, _ids,
)  # fmt: skip


def seeds() -> Iterator[bytes]:
    """Yield good values of each kind."""
    for text in ("5", "-5", "1_000", "9007199254740991", "2026-11", "2026-11-21", "2026-11-21T08:00:00+02:00", "acme"):
        yield text.encode()
    yield from (b"20260101T000000Z", b"2026-W47-6", b"1795305600000", b'"acme"', b"0.5", b"page-capture")


TARGET = Target(
    check=check, seeds=seeds, words=(b"T00:00:00", b"+23:59", b"-23:59", b"0001-01", b"9999-12", b"2999-12")
)
