"""What a webhook's answer means, and how long to wait before the next attempt. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Final

#: HTTP: the receiver is gone for good and wants no more calls.
_GONE: Final = 410
_FIRST_PAUSE_SECONDS: Final = 5
_GROWTH: Final = 4
_PAUSE_SECONDS_MAX: Final = 6 * 3_600


@dataclass(frozen=True, kw_only=True, slots=True)
class Answer:
    """The HTTP status of one attempt; None with a reason where there was none."""

    status: int | None
    reason: str = ""

    @property
    def delivered(self) -> bool:
        """Whether the receiver has taken the message. A redirect is not followed, so it is no delivery."""
        return self.status is not None and 200 <= self.status < 300  # noqa: PLR2004 - HTTP's own bounds

    @property
    def final(self) -> bool:
        """Whether no further attempt is wanted."""
        return self.delivered or self.status == _GONE

    def __str__(self) -> str:
        return self.reason or f"answered {self.status}"


def pause_after(attempts: int) -> timedelta:
    """Return the pause after so many attempts: 5 s, 20 s, 80 s, … at most 6 h; eight attempts take near 8 h."""
    return timedelta(seconds=min(_PAUSE_SECONDS_MAX, _FIRST_PAUSE_SECONDS * _GROWTH ** (attempts - 1)))
