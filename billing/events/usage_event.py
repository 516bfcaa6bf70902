"""The usage event: one immutable fact per settlement, with all its lines, as versioned JSON.

The event is written in two hands. The worker knows everything but four things and encodes that as a *head* (a JSON
object without its closing brace) and one *fragment* per line. The `settle` script adds what only Redis knows (time,
epoch, lateness, which grants paid) and closes the text, in the same atomic step that takes the credits. So an
event never exists without its charge, nor a charge without its event (L3). `billing/events/usage_event.schema.json`
describes the result.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Literal

import msgspec

VERSION: Final = 1

#: How a run was billed that was outside the ceiling: not at all, or without a bucket.
Mode = Literal["dry_run", "meter_only"]
DRY_RUN: Final = "dry_run"
METER_ONLY: Final = "meter_only"

# The values of an event hold no cycles, and a consumer has thousands of them: the garbage collector leaves them alone.


class UsageLine(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was used of one SKU: `quantity` in the SKU's unit, rated to `credits`."""

    sku: str
    quantity: int
    credits: int


class GrantShare(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """How many credits of a line one grant paid. Grant 0 is debt: work that was done though nothing covered it."""

    grant: int
    credits: int


class PaidLine(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A usage line as charged: the shares of `grants` add up to `credits`."""

    sku: str
    quantity: int
    credits: int
    grants: tuple[GrantShare, ...]


class EventHead(msgspec.Struct, frozen=True, kw_only=True):
    """The part of the event that the worker knows. Times are milliseconds since the Unix epoch."""

    version: int = VERSION
    run_id: uuid.UUID
    client_id: str
    correlation_id: str
    root_id: str
    task: str
    attempt: int
    submitted_at: int | None
    price_version: int


class Draft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is charged if the worker dies after its success: stored with the hold, for the reaper to finish.

    `priced_at` is the instant, in milliseconds since the Unix epoch, whose prices the run is charged at: its first
    reserve, however often it is retried. `fixed` is what the run's own SKU costs whatever the price book says, as its
    task declared then (`credits=`); None where the book prices it. `reserve.lua` reads it from the text.
    """

    priced_at: int
    lines: tuple[UsageLine, ...]
    fixed: int | None = None


class UsageEvent(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A settled run. Unknown fields are ignored, so that a newer sender's event is still understood.

    `correlation_id` is the Celery task id (of a block of `billing.reserve` its key, else its run id), `attempt` counts
    from 1, `submitted_at` and `occurred_at` are milliseconds since the Unix epoch (`occurred_at` is Redis time, stamped
    by `settle`; `submitted_at` is None for senders without the library). `late`: the hold was gone when the work
    finished. `mode`: the run was outside the ceiling (L1), in a dry run, which costs nothing, or while Redis was away;
    an ordinary run's event has none.
    """

    version: int
    run_id: uuid.UUID
    client_id: str
    correlation_id: str
    root_id: str
    task: str
    attempt: int
    submitted_at: int | None
    price_version: int
    settlement_id: str
    occurred_at: int
    epoch: int
    late: bool
    lines: tuple[PaidLine, ...]
    mode: Mode | None = None


def encode_head(head: EventHead) -> bytes:
    """Return the head as JSON without the closing brace, as the `settle` script takes it."""
    return msgspec.json.encode(head)[:-1]


def encode_fragment(line: UsageLine) -> bytes:
    """Return a line as JSON without the closing brace, as the `settle` script takes it."""
    return msgspec.json.encode(line)[:-1]


def encode_draft(draft: Draft) -> bytes:
    """Return a draft as it is stored with a reservation."""
    return msgspec.json.encode(draft)


def decode_draft(data: bytes) -> Draft:
    """Read what `encode_draft` wrote. Raises `msgspec.MsgspecError`, for any other bytes."""
    with _unreadable():
        return msgspec.json.decode(data, type=Draft)


def decode_head(data: bytes) -> EventHead:
    """Read what `encode_head` wrote. Raises `msgspec.MsgspecError`, for any other bytes."""
    with _unreadable():
        return msgspec.json.decode(data + b"}", type=EventHead)


@contextmanager
def _unreadable() -> Iterator[None]:
    """Map what msgspec raises besides: for nesting without end, digits without end, and text that is not UTF-8."""
    try:
        yield
    except (ValueError, RecursionError) as error:
        if isinstance(error, msgspec.MsgspecError):
            raise
        raise msgspec.DecodeError(str(error)) from None
