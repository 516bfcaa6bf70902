"""What a run is charged now: at the prices that its first reserve fixed, in the form that a bucket takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from billing.catalog.price_book import PriceBook
from billing.core.errors import Unreachable
from billing.credits.values import Settlement
from billing.events.usage_event import encode_fragment, encode_head
from billing.task.run import Run

if TYPE_CHECKING:
    from billing.task.runtime import Runtime


def book_of(runtime: Runtime, run: Run) -> PriceBook:
    """Return a price book that knows the version at which the run is charged. Raises `Unreachable`."""
    book = runtime.prices.get()
    if book.version < run.head.price_version:
        # Another worker's copy was newer when the run first reserved.
        book = runtime.prices.renewed()
    if book.version < run.head.price_version:
        raise Unreachable(f"price book: version {run.head.price_version} of run {run.identity.run_id} is not here yet")
    return book


def settlement_of(runtime: Runtime, run: Run) -> Settlement:
    """Return what settles the run if it has succeeded now."""
    lines = run.lines(book_of(runtime, run))
    return Settlement(
        run_id=run.identity.run_id,
        client_id=run.identity.client_id,
        sku=run.hold.sku,
        settlement_id=run.settlement_id,
        head=encode_head(run.head),
        fragments=tuple(encode_fragment(line) for line in lines),
        amounts=tuple(line.credits for line in lines),
    )
