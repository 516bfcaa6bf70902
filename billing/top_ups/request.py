"""A request for credits, as the application's hook gets it, and what the hook may answer. Pure."""

from __future__ import annotations

import dataclasses
from datetime import datetime, timedelta
from enum import Enum
from typing import Final

_FIRST_PAUSE_SECONDS: Final = 60
_PAUSE_SECONDS_MAX: Final = 6 * 3_600
_DOUBLINGS_MAX: Final = 16


class Answer(Enum):
    """What the application says. Its hook may return the bare word, too."""

    #: It was paid for: billing writes the grant.
    GRANTED = "granted"
    #: It will not be paid for now.
    DECLINED = "declined"
    #: The answer comes later, by `admin.answer_top_up`, or by a grant under the request's key.
    PENDING = "pending"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """Credits that a client is to buy. `key` is that of the grant that it becomes, and as good a key for the payment.

    Both it and `request_id` are the same whenever it is asked again.
    """

    request_id: int
    client_id: str
    key: str
    credits: int
    shortfall: str
    available: int
    attempts: int
    created_at: datetime


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class RequestRow:
    """A request and what became of it: wanted → asked → granted, declined or lapsed."""

    request_id: int
    client_id: str
    key: str
    credits: int
    shortfall: str
    available: int
    state: str
    answer: str
    attempts: int
    next_at: datetime
    created_at: datetime
    asked_at: datetime | None
    finished_at: datetime | None
    grant_id: int | None
    reason: str


def pause_after(attempts: int) -> timedelta:
    """Return the pause before a request is tried again that failed: 1, 2, 4, … minutes, at most 6 h."""
    doublings = min(max(attempts, 1) - 1, _DOUBLINGS_MAX)
    return timedelta(seconds=min(_PAUSE_SECONDS_MAX, _FIRST_PAUSE_SECONDS * 2**doublings))
